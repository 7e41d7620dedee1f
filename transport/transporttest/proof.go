// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// A Proof is a PoP JWT or DPoP proof as it came. Its signature need not be good.
type Proof struct {
	Header map[string]any
	Claims map[string]any
	// The claims that tests ask for most, "" or 0 if missing or of another type.
	Audience, ID, Challenge, Nonce string
	IssuedAt                       int64 // seconds
}

// asymmetric are the algorithms that proofs and attestations may have.
var asymmetric = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.PS256, jose.RS256}

var compactJWT = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// field returns the value of a header field that must be there exactly once.
func field(h http.Header, name string) (string, error) {
	values := h.Values(name)
	if len(values) != 1 {
		return "", fmt.Errorf("%d %s fields", len(values), name)
	}
	if !compactJWT.MatchString(values[0]) {
		return "", fmt.Errorf("%s is not a compact JWT alone", name)
	}
	return values[0], nil
}

// ParseProof reads a JWT without verifying it; nil if it is none.
func ParseProof(token string) *Proof {
	p := new(Proof)
	parts := strings.Split(token, ".")
	if len(parts) != 3 || decode(parts[0], &p.Header) != nil || decode(parts[1], &p.Claims) != nil {
		return nil
	}
	for name, to := range map[string]*string{"aud": &p.Audience, "jti": &p.ID, "challenge": &p.Challenge, "nonce": &p.Nonce} {
		*to, _ = p.Claims[name].(string)
	}
	iat, _ := p.Claims["iat"].(float64)
	p.IssuedAt = int64(iat)
	return p
}

func decode(part string, to any) error {
	raw, err := rawURL.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to) // refuses members that come twice
}

// verify checks type, algorithm and signature of a JWT and returns its claims.
func verify(token, typ string, key any) (*Proof, error) {
	jws, err := jose.ParseSignedCompact(token, asymmetric)
	if err != nil {
		return nil, fmt.Errorf("not a JWS with an asymmetric algorithm: %w", err)
	}
	p := ParseProof(token)
	if p == nil {
		return nil, fmt.Errorf("not a JWT")
	}
	if p.Header["typ"] != typ {
		return nil, fmt.Errorf("typ is %v, not %s", p.Header["typ"], typ)
	}
	if _, err := jws.Verify(key); err != nil {
		return nil, err
	}
	return p, nil
}

// embedded returns the public key in a DPoP proof's header.
func embedded(token string) (*jose.JSONWebKey, error) {
	jws, err := jose.ParseSignedCompact(token, asymmetric)
	if err != nil {
		return nil, err
	}
	jwk := jws.Signatures[0].Protected.JSONWebKey
	if jwk == nil || !jwk.Valid() || !jwk.IsPublic() {
		return nil, fmt.Errorf("no public jwk in the header")
	}
	return jwk, nil
}
