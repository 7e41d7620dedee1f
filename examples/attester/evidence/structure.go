// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// parse reads a TPM structure. data must be that structure, whole, in the one
// encoding that a TPM gives it: go-tpm's decoder ignores what follows a
// structure, and a hash over data would then cover more than what was checked.
func parse[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](data []byte) (parsed *T, err error) {
	// go-tpm's encoder panics on values that cannot be encoded.
	defer func() {
		if r := recover(); r != nil {
			parsed, err = nil, fmt.Errorf("malformed %T: %v", *new(T), r)
		}
	}()
	parsed, err = tpm2.Unmarshal[T, P](data)
	if err != nil {
		return nil, fmt.Errorf("malformed %T: %w", *new(T), err)
	}
	if !bytes.Equal(tpm2.Marshal(*parsed), data) {
		return nil, errors.New("has trailing or redundant bytes")
	}
	return parsed, nil
}
