// SPDX-License-Identifier: Apache-2.0

// Package transporttest has the authorization server that package transport is
// tested against: strict in what it verifies, and, at a test's wish, hostile in
// how it answers. It is for the tests of whoever embeds package transport or
// package client, too.
//
//	func TestToken(t *testing.T) {
//		server := transporttest.New(t, transporttest.Config{
//			Policy: transporttest.Policy{Kind: transporttest.SingleUse},
//		})
//		rt, err := transport.New(transport.Config{
//			Key:          key,
//			Attestations: server.Attester.Source(key),
//			Servers:      []transport.Server{server.Transport()},
//		})
//		// …
//		if n := server.Count(transporttest.Challenge); n != 1 {
//			t.Errorf("%d challenge requests, want 1", n)
//		}
//	}
//
// Every request is recorded with what it carried and how it was judged; see
// [Server.Requests]. By default the server refuses a good challenge now and then, at
// random; a test that counts requests says that it must not ([Policy].NoRandomRefusals).
// New logs the seed of what is random, so a test that fails shows it. A run with that
// [Config].Seed does the same. Nothing else depends on chance or on the clock, except the
// order in which concurrent requests arrive.
//
// For clients in other languages the server is a program, hostileserver.
package transporttest

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport"
)

// Endpoint names, in [Request] and for [Server.Count].
const (
	Token         = "token"
	PAR           = "par"
	Introspection = "introspection"
	Revocation    = "revocation"
	Challenge     = "challenge"
	Metadata      = "metadata"
)

// authenticating are the endpoints at which a client authenticates.
var authenticating = []string{Token, PAR, Introspection, Revocation}

// Config configures a Server.
type Config struct {
	Policy Policy
	// ClientID is the only client; "" means "client".
	ClientID string
	// AttestationType and Subject are the "typ" and "sub" of attestations, as a
	// profile may have them; "" means the draft's type, and ClientID.
	AttestationType, Subject string
	// Clock is the server's and the attester's; nil means time.Now.
	Clock func() time.Time
	// Endpoints are further endpoints at which the client authenticates, such as
	// "device_authorization". Pages are further endpoints for others, such as
	// "authorization" for users. In the server's metadata "_endpoint" is added to their
	// names. Endpoints of an ordinary server are there without being named.
	Endpoints []string
	Pages     map[string]http.Handler
	// Seed decides paths, challenges, nonces, tokens, and which good challenges
	// are refused; 0 means one that New draws and logs.
	Seed uint64
	// Listener is where the server listens, with plain HTTP; nil means a free
	// port of the loopback interface.
	Listener net.Listener
}

// A Server is an authorization server with one client.
type Server struct {
	URL      string // of the HTTP server
	Issuer   string // the issuer identifier; has a path
	ClientID string
	Attester *Attester // the one it trusts
	Trap     *Trap     // where it redirects to

	now        func() time.Time
	values     *values
	paths      map[string]string // of each endpoint
	protected  []string          // endpoints at which the client authenticates
	further    []string          // those of them, and pages, that Config names
	pages      map[string]http.Handler
	endpoints  map[string]string // by path
	challenges challenges
	nonces     nonces

	mu       sync.Mutex
	policy   Policy
	requests []*Request
	jtis     map[string]bool
	deny     map[string]bool
	gates    []*Gate
}

// New starts a Server on a loopback address. It lasts until the test ends.
func New(tb testing.TB, cfg Config) *Server {
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
		tb.Logf("transporttest: seed %d", seed)
	}
	values := newValues(seed)
	s := &Server{
		ClientID:   cfg.ClientID,
		Trap:       NewTrap(tb),
		now:        cfg.Clock,
		values:     values,
		paths:      make(map[string]string),
		endpoints:  make(map[string]string),
		challenges: newChallenges(values, seed),
		nonces:     nonces{values: values},
		policy:     cfg.Policy,
		protected:  slices.Concat(authenticating, cfg.Endpoints),
		further:    slices.Concat(cfg.Endpoints, slices.Sorted(maps.Keys(cfg.Pages))),
		pages:      maps.Clone(cfg.Pages),
		jtis:       make(map[string]bool),
		deny:       make(map[string]bool),
	}
	if s.ClientID == "" {
		s.ClientID = "client"
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.Attester = newAttester(tb, cmp.Or(cfg.AttestationType, typeAttestation), cmp.Or(cfg.Subject, s.ClientID), s.now)

	tenant := "/" + values.next()
	s.paths[Metadata] = "/.well-known/oauth-authorization-server" + tenant
	for _, name := range slices.Concat([]string{Challenge}, s.protected, slices.Sorted(maps.Keys(cfg.Pages))) {
		s.paths[name] = "/" + values.next() + "/" + name
	}
	for name, path := range s.paths {
		s.endpoints[path] = name
	}

	server := httptest.NewUnstartedServer(s)
	if cfg.Listener != nil {
		server.Listener.Close()
		server.Listener = cfg.Listener
	}
	server.Start()
	tb.Cleanup(func() {
		s.mu.Lock()
		for _, g := range s.gates {
			g.Open()
		}
		s.mu.Unlock()
		server.Close()
	})
	s.URL = server.URL
	s.Issuer = server.URL + tenant
	return s
}

// Endpoint returns the URL of an endpoint.
func (s *Server) Endpoint(name string) string { return s.URL + s.paths[name] }

// Transport describes the server to package transport, as its policy is now.
func (s *Server) Transport() transport.Server {
	p := s.currentPolicy()
	out := transport.Server{Issuer: s.Issuer}
	for _, name := range s.protected {
		out.Endpoints = append(out.Endpoints, s.Endpoint(name))
	}
	if !p.NoEndpoint {
		out.ChallengeEndpoint = s.Endpoint(Challenge)
	}
	if p.Combined {
		out.Method = transport.MethodDPoP
	}
	return out
}

// Set changes the policy for requests that have not been judged yet.
func (s *Server) Set(change func(*Policy)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.policy)
}

// Rotate makes all challenges bad that were given so far.
func (s *Server) Rotate() { s.challenges.rotate() }

// RotateNonce makes the DPoP nonce bad that was given so far.
func (s *Server) RotateNonce() { s.nonces.rotate() }

// Deny answers use_fresh_attestation to requests with this attestation.
func (s *Server) Deny(attestation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deny[attestation] = true
}

func (s *Server) denied(attestation string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deny[attestation]
}

func (s *Server) firstSight(jti string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jtis[jti] {
		return false
	}
	s.jtis[jti] = true
	return true
}

func (s *Server) currentPolicy() Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policy
}

// ServeHTTP implements http.Handler, for tests that want no network in between.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	var body []byte
	if !s.currentPolicy().Early {
		body, _ = io.ReadAll(hr.Body) // what did not come is judged as missing
	}
	r := s.record(hr, body)
	if before := s.currentPolicy().Before; before != nil {
		before(s.snapshot(r))
	}
	p := s.currentPolicy()
	switch {
	case p.Intercept != nil && p.Intercept(w, s.snapshot(r)):
		return
	case p.Cut:
		panic(http.ErrAbortHandler)
	case p.Redirect != 0:
		s.settle(func() { r.Status = p.Redirect })
		w.Header().Set("Location", s.Trap.URL+"/elsewhere")
		w.WriteHeader(p.Redirect)
		return
	case r.Endpoint == Metadata:
		s.settle(func() { r.Status = http.StatusOK })
		writeJSON(w, http.StatusOK, s.metadata(p))
		return
	case r.Endpoint == Challenge && !p.NoEndpoint:
		s.serveChallenge(w, p, r)
		return
	case s.pages[r.Endpoint] != nil:
		s.settle(func() { r.Status = http.StatusOK })
		hr.Body = io.NopCloser(bytes.NewReader(body))
		s.pages[r.Endpoint].ServeHTTP(w, hr)
		return
	case !slices.Contains(s.protected, r.Endpoint):
		s.settle(func() { r.Status = http.StatusNotFound })
		http.NotFound(w, hr)
		return
	}
	v := s.judge(p, r)
	s.settle(func() { s.decide(p, r, v) })
	if v.code == "" && p.Answer != nil {
		status, answer := p.Answer(s.snapshot(r))
		s.settle(func() {
			r.Status, r.answer = status, answer
			r.Code, _ = answer["error"].(string)
		})
	}
	if p.After != nil {
		p.After(s.snapshot(r))
	}
	s.answer(w, p, r)
}

// decide sets what the answer to a judged request is. s.mu is held.
func (s *Server) decide(p Policy, r *Request, v verdict) {
	r.Code, r.Reason = v.code, v.reason
	switch {
	case v.code == "" && r.Endpoint == PAR:
		r.Status = http.StatusCreated
	case v.code == "":
		r.Status = http.StatusOK
	case p.Status != 0:
		r.Status = p.Status
	case v.status != 0:
		r.Status = v.status
	default:
		r.Status = http.StatusBadRequest
	}
	asks := v.code == "use_attestation_challenge"
	switch {
	case p.Kind == NoChallenges || p.Offer == OfferNever || p.Combined:
	case asks && p.RepeatRefused && r.PoP.Challenge != "":
		r.offered = r.PoP.Challenge
	case asks || p.Offer == OfferAlways:
		r.offered = s.challenges.offer(p, v.code != "")
	}
	if p.Nonces && (v.code == "use_dpop_nonce" || p.Offer == OfferAlways) {
		r.nonce = s.nonces.offer()
	}
}
