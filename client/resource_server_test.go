// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A resourceServer is a protected resource that verifies all that a request
// carries. What is against the rules fails the test; what a server may ask for
// anew is refused in WWW-Authenticate.
type resourceServer struct {
	t          testing.TB
	identifier string
	key        keystore.Key // the only instance's
	now        func() time.Time

	mu        sync.Mutex
	metadata  map[string]any // nil: the well-known place answers absent
	absent    int            // status; 0: 404
	place     string         // of the metadata; "": the well-known one
	challenge string         // "": no challenges
	nonce     string         // "": no nonces
	fresh     string         // an attestation that is refused as not fresh; "": none
	wrap      func(code string) []string
	silent    bool // gives challenges at its endpoint only
	plain     bool // takes requests without attestation
	combined  bool // wants the DPoP proof by the instance's key in place of the PoP JWT

	seen     map[string]bool
	requests []resourceRequest
	asked    int // for metadata
	given    int // challenges, by the endpoint
}

type resourceRequest struct {
	Header      http.Header
	Method      string
	Path        string
	PoP, DPoP   *transporttest.Proof
	DPoPKey     string // thumbprint
	Attestation string
	Status      int
	Code        string
}

func newResourceServer(t testing.TB, identifier string, key keystore.Key, now func() time.Time) *resourceServer {
	return &resourceServer{
		t: t, identifier: identifier, key: key, now: now,
		seen: make(map[string]bool),
		wrap: func(code string) []string { return []string{`DPoP error="` + code + `"`} },
	}
}

// describe makes metadata; members change it or add to it.
func (s *resourceServer) describe(members map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metadata = map[string]any{"resource": s.identifier}
	for name, value := range members {
		s.metadata[name] = value
	}
}

func (s *resourceServer) set(change func(*resourceServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *resourceServer) challengeEndpoint() string { return s.identifier + "/challenge" }

func wellKnownOf(identifier string) string {
	u, _ := url.Parse(identifier)
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.EscapedPath(), "/")
}

// ServeHTTP serves a request whose URL is absolute.
func (s *resourceServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	location := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	place := s.place
	if place == "" {
		place = wellKnownOf(s.identifier)
	}
	switch {
	case strings.Contains(location, "/.well-known/"), location == s.place:
		s.asked++
		for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, "DPoP", "Authorization"} {
			if req.Header.Get(name) != "" {
				s.t.Errorf("the metadata request has %s", name)
			}
		}
		switch {
		case s.metadata != nil && location == place:
			writeJSON(w, s.metadata)
		case s.absent != 0:
			w.WriteHeader(s.absent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	case location == s.challengeEndpoint():
		s.given++
		answer := map[string]any{}
		if s.challenge != "" {
			answer["attestation_challenge"] = s.challenge
		}
		if s.nonce != "" {
			w.Header().Set("DPoP-Nonce", s.nonce)
		}
		writeJSON(w, answer)
	default:
		s.protect(w, req, location)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// protect judges a request for the resource. s.mu is held.
func (s *resourceServer) protect(w http.ResponseWriter, req *http.Request, location string) {
	r := resourceRequest{Header: req.Header.Clone(), Method: req.Method, Path: req.URL.Path, Status: http.StatusOK, Attestation: req.Header.Get(transport.HeaderAttestation)}
	code := s.judge(req, location, &r)
	if code != "" {
		r.Status, r.Code = http.StatusUnauthorized, code
		for _, field := range s.wrap(code) {
			w.Header().Add("WWW-Authenticate", field)
		}
	}
	if code == "use_attestation_challenge" && !s.silent {
		w.Header().Set(transport.HeaderChallenge, s.challenge)
	}
	if code == "use_dpop_nonce" {
		w.Header().Set(transport.HeaderDPoPNonce, s.nonce)
	}
	s.requests = append(s.requests, r)
	w.WriteHeader(r.Status)
}

func (s *resourceServer) judge(req *http.Request, location string, r *resourceRequest) (code string) {
	broken := func(format string, args ...any) string {
		s.t.Errorf("%s %s: %s", req.Method, location, fmt.Sprintf(format, args...))
		return "invalid_client_attestation"
	}
	attestations, pops := req.Header.Values(transport.HeaderAttestation), req.Header.Values(transport.HeaderAttestationPoP)
	wants := map[bool][2]int{s.plain: {0, 0}, !s.plain: {1, 1}}[true]
	if s.combined {
		wants[1] = 0
	}
	if len(attestations) != wants[0] || len(pops) != wants[1] {
		return broken("%d attestations and %d PoP JWTs, want %d", len(attestations), len(pops), wants)
	}
	if len(pops) == 1 {
		pop, reason := s.verify(pops[0], "oauth-client-attestation-pop+jwt", s.key.Public())
		if reason != "" {
			return broken("PoP: %s", reason)
		}
		r.PoP = pop
		if pop.Audience != s.identifier {
			return broken("aud %v", pop.Claims["aud"])
		}
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	proofs := req.Header.Values("DPoP")
	if bound := strings.EqualFold(scheme, "DPoP"); len(proofs) > 1 || (bound || s.combined) != (len(proofs) == 1) {
		return broken("%d DPoP proofs with a token of type %s", len(proofs), scheme)
	}
	if len(proofs) == 1 {
		jws, err := jose.ParseSignedCompact(proofs[0], []jose.SignatureAlgorithm{jose.ES256})
		if err != nil || jws.Signatures[0].Protected.JSONWebKey == nil {
			return broken("DPoP: %v", err)
		}
		jwk := jws.Signatures[0].Protected.JSONWebKey
		proof, reason := s.verify(proofs[0], "dpop+jwt", jwk.Key)
		sum := sha256.Sum256([]byte(token))
		switch {
		case reason != "":
		case proof.Claims["htm"] != req.Method || proof.Claims["htu"] != location:
			reason = fmt.Sprintf("for %v %v", proof.Claims["htm"], proof.Claims["htu"])
		case token != "" && proof.Claims["ath"] != base64.RawURLEncoding.EncodeToString(sum[:]):
			reason = fmt.Sprintf("ath is %v", proof.Claims["ath"]) // RFC 9449, section 4.3: for a token of any type
		}
		if reason != "" {
			return broken("DPoP: %s", reason)
		}
		thumbprint, _ := jwk.Thumbprint(crypto.SHA256)
		r.DPoP, r.DPoPKey = proof, base64.RawURLEncoding.EncodeToString(thumbprint)
	}
	switch {
	case s.fresh != "" && r.Attestation == s.fresh:
		return "use_fresh_attestation"
	case r.PoP != nil && s.challenge != "" && r.PoP.Challenge != s.challenge:
		return "use_attestation_challenge"
	case r.DPoP != nil && s.nonce != "" && r.DPoP.Nonce != s.nonce:
		return "use_dpop_nonce"
	}
	return ""
}

// verify checks what is common to PoP JWTs and DPoP proofs.
func (s *resourceServer) verify(token, typ string, key any) (proof *transporttest.Proof, reason string) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, err.Error()
	}
	if _, err := jws.Verify(key); err != nil {
		return nil, err.Error()
	}
	proof = transporttest.ParseProof(token)
	age := s.now().Sub(time.Unix(proof.IssuedAt, 0))
	switch {
	case proof.Header["typ"] != typ:
		reason = fmt.Sprintf("typ %v", proof.Header["typ"])
	case age.Abs() > 16*time.Second:
		reason = fmt.Sprintf("iat is %s from now", age)
	case proof.ID == "" || s.seen[proof.ID]:
		reason = "jti is missing or was seen before"
	}
	s.seen[proof.ID] = true
	return proof, reason
}

// got returns the requests so far.
func (s *resourceServer) got() []resourceRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]resourceRequest(nil), s.requests...)
}

// counts checks how many requests came for the resource, its metadata and its
// challenges.
func (s *resourceServer) counts(requests, asked, given int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != requests || s.asked != asked || s.given != given {
		s.t.Errorf("%s: %d requests, %d for metadata, %d for challenges, want %d, %d, %d: %s",
			s.identifier, len(s.requests), s.asked, s.given, requests, asked, given, s.history())
	}
}

func (s *resourceServer) history() string {
	var b strings.Builder
	for _, r := range s.requests {
		fmt.Fprintf(&b, "\n%s %s: %d %s", r.Method, r.Path, r.Status, r.Code)
	}
	return b.String()
}
