// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/transport"
)

const (
	typePoP  = "oauth-client-attestation-pop+jwt"
	typeDPoP = "dpop+jwt"
)

// A verdict is an OAuth error, or, with an empty code, acceptance.
type verdict struct {
	code   string
	status int    // 0: 400
	reason string // for whoever reads a failed test
}

func invalidClient(format string, args ...any) verdict {
	return verdict{"invalid_client", http.StatusUnauthorized, fmt.Sprintf(format, args...)}
}

// judge verifies all that a request to an authenticating endpoint carries: the
// draft's sections 7.1 to 7.3, and RFC 9449, section 4.3. Like some servers it
// takes note of a jti before it looks at the challenge, so that a retry with the
// same jti is found out.
func (s *Server) judge(p Policy, r *Request) verdict {
	if r.Method != http.MethodPost {
		return verdict{"invalid_request", http.StatusMethodNotAllowed, "method " + r.Method}
	}
	if n := len(r.Header.Values(transport.HeaderAttestation)); n > 1 {
		return verdict{"invalid_request", 0, fmt.Sprintf("%d %s fields", n, transport.HeaderAttestation)}
	}
	raw, err := field(r.Header, transport.HeaderAttestation)
	if err != nil {
		return invalidClient("attestation: %v", err)
	}
	cnf, err := s.checkAttestation(raw)
	if err == nil {
		err = s.checkClientID(r)
	}
	if err != nil {
		return invalidClient("attestation: %v", err)
	}
	s.settle(func() { r.KeyThumbprint = thumbprint(cnf) })
	if p.UnknownClient {
		return invalidClient("unknown client")
	}
	if s.denied(raw) {
		return verdict{"use_fresh_attestation", 0, "attestation is denied"}
	}
	if p.Combined {
		if n := len(r.Header.Values(transport.HeaderAttestationPoP)); n != 0 {
			return invalidClient("combined mode with %d PoP JWTs", n)
		}
		return s.judgeDPoP(p, r, cnf)
	}
	if v := s.judgePoP(p, r, cnf); v.code != "" {
		return v
	}
	if len(r.Header.Values(transport.HeaderDPoP)) == 0 {
		return verdict{}
	}
	return s.judgeDPoP(p, r, nil)
}

func (s *Server) checkAttestation(raw string) (cnf *jose.JSONWebKey, err error) {
	p, err := verify(raw, s.Attester.typ, &s.Attester.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if p.Claims["sub"] != s.Attester.subject {
		return nil, fmt.Errorf("sub is %v", p.Claims["sub"])
	}
	if exp, ok := p.Claims["exp"].(float64); !ok || !s.now().Before(time.Unix(int64(exp), 0)) {
		return nil, errors.New("expired, or without exp")
	}
	inner, _ := p.Claims["cnf"].(map[string]any)
	bytes, err := json.Marshal(inner["jwk"])
	if err != nil {
		return nil, err
	}
	cnf = new(jose.JSONWebKey)
	if err := cnf.UnmarshalJSON(bytes); err != nil || !cnf.IsPublic() {
		return nil, errors.New("cnf has no public jwk")
	}
	return cnf, nil
}

func (s *Server) checkClientID(r *Request) error {
	form, _ := url.ParseQuery(string(r.Body))
	if id := form.Get("client_id"); id != "" && id != s.ClientID {
		return fmt.Errorf("client_id is %q", id)
	}
	return nil
}

func (s *Server) judgePoP(p Policy, r *Request, cnf *jose.JSONWebKey) verdict {
	pop, err := s.checkPoP(p, r.Header, s.Issuer, cnf)
	if err != nil {
		return invalidClient("PoP: %v", err)
	}
	if reason := s.challenges.refuse(p, pop.Challenge); reason != "" {
		return verdict{"use_attestation_challenge", 0, reason}
	}
	return verdict{}
}

// checkPoP verifies a PoP JWT by the key of the attestation, but for its challenge.
func (s *Server) checkPoP(p Policy, h http.Header, audience string, cnf *jose.JSONWebKey) (*Proof, error) {
	raw, err := field(h, transport.HeaderAttestationPoP)
	if err != nil {
		return nil, err
	}
	pop, err := verify(raw, typePoP, cnf.Key)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"jwk", "kid", "x5c"} {
		if _, ok := pop.Header[name]; ok {
			return nil, fmt.Errorf("header has %s", name)
		}
	}
	if pop.Audience != audience { // so an array of one is refused as well
		return nil, fmt.Errorf("aud is %v", pop.Claims["aud"])
	}
	if err := s.checkFresh(p, pop); err != nil {
		return nil, err
	}
	if _, ok := pop.Claims["challenge"].(string); !ok && pop.Claims["challenge"] != nil {
		return nil, fmt.Errorf("challenge is a %T", pop.Claims["challenge"])
	}
	return pop, nil
}

// judgeDPoP verifies a DPoP proof; cnf is the key that it must be by, or nil.
func (s *Server) judgeDPoP(p Policy, r *Request, cnf *jose.JSONWebKey) verdict {
	proof, key, err := s.checkDPoP(p, r.Header, r.Method, s.URL+r.Path)
	if err != nil {
		return verdict{"invalid_dpop_proof", 0, err.Error()}
	}
	if cnf != nil && thumbprint(key) != thumbprint(cnf) {
		return invalidClient("DPoP key is not the cnf key")
	}
	if p.Nonces && !s.nonces.good(proof.Nonce) {
		return verdict{"use_dpop_nonce", 0, fmt.Sprintf("nonce %q", proof.Nonce)}
	}
	s.settle(func() { r.DPoPThumbprint = thumbprint(key) })
	return verdict{}
}

// checkDPoP verifies a DPoP proof, but for its nonce, and returns the key that it is by.
func (s *Server) checkDPoP(p Policy, h http.Header, method, url string) (*Proof, *jose.JSONWebKey, error) {
	raw, err := field(h, transport.HeaderDPoP)
	if err != nil {
		return nil, nil, err
	}
	key, err := embedded(raw)
	if err != nil {
		return nil, nil, err
	}
	proof, err := verify(raw, typeDPoP, key.Key)
	if err != nil {
		return nil, nil, err
	}
	if proof.Claims["htm"] != method || proof.Claims["htu"] != url {
		return nil, nil, fmt.Errorf("for %v %v", proof.Claims["htm"], proof.Claims["htu"])
	}
	return proof, key, s.checkFresh(p, proof)
}

// checkFresh checks iat, and that the jti was never seen.
func (s *Server) checkFresh(p Policy, proof *Proof) error {
	window := p.Window
	if window == 0 {
		window = 15 * time.Second
	}
	iat, ok := proof.Claims["iat"].(float64)
	if !ok || iat != float64(int64(iat)) {
		return fmt.Errorf("iat is %v", proof.Claims["iat"])
	}
	if age := s.now().Sub(time.Unix(int64(iat), 0)).Truncate(time.Second); age.Abs() > window {
		return fmt.Errorf("iat is %s from now", age)
	}
	if proof.ID == "" {
		return errors.New("no jti")
	}
	if !s.firstSight(proof.ID) {
		return errors.New("jti seen before")
	}
	return nil
}

func thumbprint(jwk *jose.JSONWebKey) string {
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return err.Error()
	}
	return rawURL.EncodeToString(sum)
}
