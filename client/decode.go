// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	// It is encoding/json, but refuses duplicate members, and names in another case.
	"github.com/go-jose/go-jose/v4/json"
)

// An object is a JSON object whose members are still to be decoded: those that
// nobody asks for need not be understood.
type object struct {
	name    string // for errors
	members map[string]json.RawMessage
}

// decodeJWT takes a signed JWT in compact form apart (RFC 7515, section 7.1). It
// verifies nothing. The encoding is strict: what one reader takes for a JWT another
// must not take for a different one, and a header field has one line.
func decodeJWT(raw string) (header, claims object, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return object{}, object{}, fmt.Errorf("not a signed JWT in compact form: it has %d parts, not 3", len(parts))
	}
	if header, err = decodeObject("header", parts[0]); err != nil {
		return object{}, object{}, err
	}
	if claims, err = decodeObject("payload", parts[1]); err != nil {
		return object{}, object{}, err
	}
	if _, err = decodePart("signature", parts[2]); err != nil {
		return object{}, object{}, err
	}
	return header, claims, nil
}

// decodePart decodes a part of a JWT from base64url without padding.
func decodePart(name, part string) ([]byte, error) {
	if part == "" {
		return nil, fmt.Errorf("not a signed JWT in compact form: its %s is empty", name)
	}
	if at := strings.IndexAny(part, "\r\n"); at >= 0 { // Go's base64 reads over these
		return nil, fmt.Errorf("not a signed JWT in compact form: its %s has a line end after %d characters", name, at)
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
	var corrupt base64.CorruptInputError
	if errors.As(err, &corrupt) {
		return nil, fmt.Errorf("not a signed JWT in compact form: its %s is not base64url without padding after %d of %d characters", name, int64(corrupt), len(part))
	}
	return decoded, err
}

func decodeObject(name, part string) (object, error) {
	decoded, err := decodePart(name, part)
	if err != nil {
		return object{}, err
	}
	if !utf8.Valid(decoded) {
		return object{}, fmt.Errorf("its %s is not UTF-8", name)
	}
	return parseObject(name, decoded)
}

func parseObject(name string, content []byte) (object, error) {
	o := object{name: name}
	if err := json.Unmarshal(content, &o.members); err != nil {
		return object{}, fmt.Errorf("its %s is not a JSON object: %.100q", name, err)
	}
	if o.members == nil {
		return object{}, fmt.Errorf("its %s is not a JSON object, but null", name)
	}
	return o, nil
}

// get returns a member. One that is null is as good as none.
func (o object) get(name string) (json.RawMessage, bool) {
	value, ok := o.members[name]
	return value, ok && string(value) != "null"
}

// text returns a member that is a string, "" if there is none.
func (o object) text(name string) (text string, err error) {
	value, ok := o.get(name)
	if ok && json.Unmarshal(value, &text) != nil {
		return "", fmt.Errorf("the %s in its %s is not a string", name, o.name)
	}
	return text, nil
}

// object returns a member that is an object; one without members if there is none.
func (o object) object(name string) (object, error) {
	value, ok := o.get(name)
	if !ok {
		return object{name: name}, nil
	}
	return parseObject(name, value)
}

// maxSeconds is how far from 1970 a time may be, in seconds: as far as a number in
// JSON is exact to the second (RFC 8259, section 6).
const maxSeconds = 1 << 53

// time returns a member that is a NumericDate (RFC 7519, section 2): any JSON
// number, in seconds. Fractions of a second are cut off. there is false if there
// is none.
func (o object) time(name string) (at time.Time, there bool, err error) {
	value, ok := o.get(name)
	if !ok {
		return time.Time{}, false, nil
	}
	if first := value[0]; first != '-' && (first < '0' || '9' < first) {
		return time.Time{}, false, fmt.Errorf("the %s in its %s is not a number", name, o.name)
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || seconds < -maxSeconds || maxSeconds < seconds {
		return time.Time{}, false, fmt.Errorf("the %s in its %s is out of range", name, o.name)
	}
	return time.Unix(int64(seconds), 0), true, nil
}
