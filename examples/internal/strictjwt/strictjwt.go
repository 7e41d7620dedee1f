// SPDX-License-Identifier: Apache-2.0

// Package strictjwt reads the JWTs that the reference servers are sent: one
// typ, a closed list of algorithms, no extensions (RFC 8725).
package strictjwt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/keystore"
)

// What can be wrong with a JWT, for errors.Is. The text of the errors names the
// detail and never contains the JWT.
var (
	// ErrMalformed: no compact JWS, or its header or claims are no JSON, have a
	// member twice, a member of the wrong type, or an extension.
	ErrMalformed = errors.New("malformed JWT")
	// ErrAlgorithm: the alg is not one of those accepted.
	ErrAlgorithm = errors.New("alg is not accepted")
	// ErrType: the typ is another one.
	ErrType = errors.New("wrong typ")
	// ErrSignature: the signature does not verify with the key.
	ErrSignature = errors.New("signature does not verify")
	// ErrPrivateKey: a JWK has private members.
	ErrPrivateKey = errors.New("JWK has private members")
)

// A Token is a JWT whose signature is still to be checked.
type Token struct {
	// Header is the JOSE header. Nothing in it may be relied on but for
	// finding the key, until Claims has returned without error.
	Header jose.Header
	jws    *jose.JSONWebSignature
}

// Parse reads a compact JWS with the given typ, compared byte for byte, and one
// of the given algorithms. Parameters crit and b64 are refused: no extension is
// understood here.
func Parse(compact, typ string, algorithms []jose.SignatureAlgorithm) (*Token, error) {
	if err := checkCompact(compact); err != nil {
		return nil, err
	}
	jws, err := jose.ParseSignedCompact(compact, algorithms)
	if err != nil {
		if alg := new(jose.ErrUnexpectedSignatureAlgorithm); errors.As(err, &alg) {
			return nil, fmt.Errorf("%w: %.40q", ErrAlgorithm, alg.Got)
		}
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	header := jws.Signatures[0].Protected
	for _, extension := range []jose.HeaderKey{"crit", "b64"} {
		if _, ok := header.ExtraHeaders[extension]; ok {
			return nil, fmt.Errorf("%w: header parameter %s", ErrMalformed, extension)
		}
	}
	if got, ok := header.ExtraHeaders[jose.HeaderType].(string); !ok || got != typ {
		return nil, fmt.Errorf("%w: %.60q, want %q", ErrType, got, typ)
	}
	return &Token{Header: header, jws: jws}, nil
}

// checkCompact refuses what decoders of base64url pass over: line breaks, and bits
// that belong to no byte. A JWS has one text.
func checkCompact(compact string) error {
	if strings.ContainsAny(compact, "\r\n") {
		return fmt.Errorf("%w: a line break in it", ErrMalformed)
	}
	for part := range strings.SplitSeq(compact, ".") {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return fmt.Errorf("%w: not base64url: %w", ErrMalformed, err)
		}
	}
	return nil
}

// Claims checks the signature with a public key (a type that go-jose accepts)
// and decodes the claims into dest. Claims that dest does not have are ignored.
func (t *Token) Claims(key, dest any) error {
	payload, err := t.Payload(key)
	if err != nil {
		return err
	}
	return Decode(payload, dest)
}

// Payload checks the signature with a public key and returns what was signed, for
// Decode.
func (t *Token) Payload(key any) ([]byte, error) {
	payload, err := t.jws.Verify(key)
	if err != nil {
		return nil, ErrSignature
	}
	return payload, nil
}

// Decode decodes the claims in a payload into dest, as Claims does.
func Decode(payload []byte, dest any) error {
	if err := json.Unmarshal(payload, dest); err != nil {
		return fmt.Errorf("%w: claims: %w", ErrMalformed, err)
	}
	return nil
}

// privateMembers: RFC 7518, section 6, and RFC 9964.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// PublicKey reads a JWK that must be a public key, and returns it with its RFC
// 7638 thumbprint. A private or symmetric key gives ErrPrivateKey, everything
// else that is not a public key ErrMalformed.
func PublicKey(raw []byte) (key any, thumbprint string, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, "", fmt.Errorf("%w: JWK is not a JSON object", ErrMalformed)
	}
	for _, name := range privateMembers {
		if _, ok := members[name]; ok {
			return nil, "", ErrPrivateKey
		}
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return nil, "", fmt.Errorf("%w: JWK: %w", ErrMalformed, err)
	}
	thumbprint, err = keystore.Thumbprint(jwk.Key)
	if err != nil {
		return nil, "", fmt.Errorf("%w: JWK: %w", ErrMalformed, err)
	}
	return jwk.Key, thumbprint, nil
}
