// SPDX-License-Identifier: Apache-2.0

// Package eat checks values of EAT claims (RFC 9711) that operators write down.
package eat

import (
	"encoding/base64"
	"errors"
)

// CheckOEMID checks an oemid as JSON has it (section 4.2.3): a number, which is a
// Private Enterprise Number, or text, which is 16 random bytes or an IEEE identifier
// of 3, in base64url. Nil is none.
func CheckOEMID(value any) error {
	switch id := value.(type) {
	case nil:
	case float64:
		if id != float64(uint32(id)) || id == 0 {
			return errors.New("oemid is not a Private Enterprise Number")
		}
	case string:
		raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
		if err != nil || len(raw) != 16 && len(raw) != 3 {
			return errors.New("oemid is not 16 or 3 bytes in base64url")
		}
	default:
		return errors.New("oemid is neither a number nor a string")
	}
	return nil
}

// CheckHardwareModel checks an hwmodel (section 4.2.4) before it is in base64url.
func CheckHardwareModel(text string) error {
	if len(text) < 1 || len(text) > 32 {
		return errors.New("hwmodel has not 1 to 32 bytes")
	}
	return nil
}
