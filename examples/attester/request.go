// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/examples/internal/strictjwt"
	"github.com/instancekey/instancekey/keystore"
)

const (
	typRequest = "client-attestation-request+jwt"

	maxRequestSize = 1 << 20 // a measured-boot log has tens of kilobytes
	requestWindow  = 5 * time.Minute
)

// keyAlgorithms are the Client Instance Keys that are attested, each curve with
// its own algorithm.
var keyAlgorithms = map[jose.SignatureAlgorithm]elliptic.Curve{
	jose.ES256: elliptic.P256(),
	jose.ES384: elliptic.P384(),
}

// requestClaims is the payload of the request JWS.
type requestClaims struct {
	Issuer    string           `json:"iss"` // client_id
	Audience  jwt.Audience     `json:"aud"` // the attester's URL
	IssuedAt  *jwt.NumericDate `json:"iat"`
	Expiry    *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf"` // not of the protocol, but RFC 7519 demands that it is obeyed
	ID        string           `json:"jti"`
	Challenge string           `json:"challenge"`
	Evidence  json.RawMessage  `json:"evidence"`
}

// A request is a verified request for an attestation: its sender holds the key,
// now. The evidence is still to be verified, and the challenge to be used up.
type request struct {
	clientID   string
	key        *ecdsa.PublicKey
	thumbprint string
	challenge  string
	evidence   []byte // nil: none
}

// readRequest reads and checks a request for an attestation, all but its
// evidence.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request) (*request, error) {
	var body struct {
		Request string `json:"request"`
	}
	if err := readBody(w, r, maxRequestSize, &body); err != nil {
		return nil, err
	}
	if body.Request == "" {
		return nil, refuse(evidence.CodeInvalidRequest, "body has no request")
	}
	token, err := strictjwt.Parse(body.Request, typRequest, []jose.SignatureAlgorithm{jose.ES256, jose.ES384})
	switch {
	case errors.Is(err, strictjwt.ErrAlgorithm):
		return nil, refuse(evidence.CodeUnsupportedKey, "%v", err)
	case err != nil: // also a private key in jwk, which go-jose refuses to parse
		return nil, refuse(codeInvalidPoP, "%v", err)
	case token.Header.JSONWebKey == nil:
		return nil, refuse(codeInvalidPoP, "no jwk")
	}
	key, ok := token.Header.JSONWebKey.Key.(*ecdsa.PublicKey)
	if !ok || key.Curve != keyAlgorithms[jose.SignatureAlgorithm(token.Header.Algorithm)] {
		return nil, refuse(evidence.CodeUnsupportedKey, "jwk is not a key for %s", token.Header.Algorithm)
	}
	var claims requestClaims
	if err := token.Claims(key, &claims); err != nil {
		return nil, refuse(codeInvalidPoP, "%v", err)
	}
	if err := s.checkClaims(&claims); err != nil {
		return nil, err
	}
	thumbprint, err := keystore.Thumbprint(key)
	if err != nil {
		return nil, refuse(codeInvalidPoP, "%v", err)
	}
	if string(claims.Evidence) == "null" {
		claims.Evidence = nil
	}
	return &request{
		clientID:   claims.Issuer,
		key:        key,
		thumbprint: thumbprint,
		challenge:  claims.Challenge,
		evidence:   claims.Evidence,
	}, nil
}

// readBody decodes a JSON body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, dest any) error {
	if !serve.IsMediaType(r, "application/json") {
		return refuse(evidence.CodeInvalidRequest, "body is not application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return refuse(evidence.CodeInvalidRequest, "body: %v", err)
	}
	if err := json.Unmarshal(bytes.TrimSpace(body), dest); err != nil {
		return refuse(evidence.CodeInvalidRequest, "body: %v", err)
	}
	return nil
}

func (s *Server) checkClaims(claims *requestClaims) error {
	switch {
	case claims.Issuer == "" || claims.ID == "" || claims.IssuedAt == nil || claims.Expiry == nil || claims.Challenge == "":
		return refuse(codeInvalidPoP, "iss, jti, iat, exp or challenge is missing")
	case len(claims.Audience) != 1 || claims.Audience[0] != s.cfg.URL:
		return refuse(codeInvalidPoP, "aud %.120q is not this attester", claims.Audience)
	}
	now, issued := s.cfg.Now(), claims.IssuedAt.Time()
	switch {
	case issued.After(now.Add(clockSkew)):
		return refuse(codeInvalidPoP, "iat is in the future")
	case now.Sub(issued) >= requestWindow:
		return refuse(codeInvalidPoP, "iat is more than %v old", requestWindow)
	case !now.Before(claims.Expiry.Time().Add(clockSkew)):
		return refuse(codeInvalidPoP, "request has expired")
	case claims.NotBefore != nil && claims.NotBefore.Time().After(now.Add(clockSkew)):
		return refuse(codeInvalidPoP, "nbf is in the future")
	case !slices.Contains(s.cfg.Clients, claims.Issuer):
		return refuse(evidence.CodePolicyViolation, "client %.80q is not served here", claims.Issuer)
	}
	if err := s.challenges.Check(claims.Challenge); err != nil {
		return refuse(codeInvalidChallenge, "%v", err)
	}
	if s.spent.Has(claims.Challenge) { // spend has the last word
		return refuse(codeInvalidChallenge, "%v", freshness.ErrSeen)
	}
	return nil
}

// spend uses a challenge or a session up, last of all: what is remembered must
// be of a device that has proved its TPM, or anybody could fill the memory. Of two
// requests that race with one value, one fails here.
func spend(used *freshness.Seen, value, code string) error {
	switch err := used.Add(value); {
	case errors.Is(err, freshness.ErrSeen):
		return refuse(code, "%v", err)
	case err != nil:
		return refuse(codeTemporarilyUnavailable, "%v", err)
	}
	return nil
}
