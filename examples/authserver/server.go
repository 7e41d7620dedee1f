// SPDX-License-Identifier: Apache-2.0

// Package authserver is a reference OAuth 2.0 authorization server with
// attestation-based client authentication
// (draft-ietf-oauth-attestation-based-client-auth-11), and a protected resource
// that asks for attestations too: strict, small, and laid out so that it can be
// read beside the draft.
//
//   - verifier.go: which rules apply to a request (section 7)
//   - attestation.go, remembered.go: the Client Attestation JWT (section 7.1)
//   - trust.go: whose attestations count
//   - pop.go: the Client Attestation PoP JWT (section 7.2)
//   - dpop.go: DPoP (RFC 9449), and the combined mode (sections 5.2 and 7.3)
//   - challenge.go: challenges (section 6) and DPoP nonces
//   - clientauth.go: client authentication at the server's endpoints (section 7.5)
//   - policy.go: what devices must be like: step (5)
//   - token.go, accesstoken.go: the token endpoint; access tokens
//   - refresh.go: refresh token binding (section 10.3)
//   - par.go, code.go: pushed authorization requests, and their codes (section 10.4)
//   - reqhash.go: a PoP JWT that vouches for an earlier message
//   - resource.go, resourceauth.go: the protected resource (section 7.6)
//   - metadata.go: RFC 8414 and RFC 9728 metadata (section 8)
//   - errors.go: the error codes (section 7.4), and what is logged about each refusal
//
// It grants client_credentials, refresh_token and authorization_code; there are
// no users, so codes are granted unasked. It keeps its state in memory and signs
// with a key that it makes at start: it is for tests, for demonstrations, and
// for whoever writes such a server in earnest.
package authserver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/internal/endpoint"
)

// Config describes a Server. Issuer, Clients and one of AttesterKeys and
// AttesterRoots are required; the zero value of every other field is usable.
type Config struct {
	// Issuer is the RFC 8414 issuer identifier: an https URL, or http on
	// loopback. The endpoints are below it: /token, /challenge, /jwks, and for
	// clients with redirect URIs /par and /authorize.
	Issuer string

	Clients []Client

	// AttesterKeys are the public keys of the Client Attesters that are trusted,
	// found by kid: each key has one, and no two the same (section 10.8).
	AttesterKeys jose.JSONWebKeySet
	// AttesterRoots are the trust anchors for attestations with an x5c header.
	// Every certificate below them may attest every client, so the pool must be
	// one for this purpose.
	AttesterRoots *x509.CertPool

	// AttestationAlgorithms and ProofAlgorithms are the algorithms accepted for
	// Client Attestation JWTs, and for PoP JWTs and DPoP proofs. Nil means ES256,
	// ES384, ES512 and EdDSA. MAC algorithms are refused by New in both.
	AttestationAlgorithms []jose.SignatureAlgorithm
	ProofAlgorithms       []jose.SignatureAlgorithm

	// Policy decides by what attestations say of the device. Nil: every device
	// of a trusted attester is served. SetAttesters and SetPolicy change these
	// three of a running server.
	Policy *Policy
	// MaxAttestationAge limits the age of an attestation by its iat, beyond the
	// exp that it has itself; older ones get use_fresh_attestation. 0: no limit.
	MaxAttestationAge time.Duration
	// ProofWindow is how far back the iat of a PoP JWT or DPoP proof may be.
	// 0 means 1 minute. In the future it may be 10 seconds.
	ProofWindow time.Duration

	// Challenges: nil means that no challenges are used.
	Challenges *ChallengeConfig
	// DPoPNonces demands a server-provided nonce in every DPoP proof, and gives
	// a new one on every response of the token and challenge endpoints.
	DPoPNonces bool

	// RefreshTokens adds a refresh token to every token response, also for
	// client_credentials, where RFC 6749 advises against it: it makes section
	// 10.3 observable without a browser.
	RefreshTokens bool
	// RequireReqHash refuses a code whose token request does not vouch, by a
	// req_hash in its PoP JWT, for the pushed authorization request. A wrong
	// req_hash is always refused.
	RequireReqHash bool
	// Resource adds a protected resource, for which access tokens can be asked by
	// the parameter resource (RFC 8707). Nil: none, and the parameter is ignored.
	Resource *ResourceConfig
	// TokenLifetime is that of access tokens. 0 means 5 minutes.
	TokenLifetime time.Duration

	// Logger receives one record for each token and for each refusal, with the
	// rule that was broken and the reason. Nil: slog.Default.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// clockSkew is how far another's clock may be ahead of ours, and how long after
// its exp a JWT is still taken.
const clockSkew = 10 * time.Second

// replayCapacity bounds each replay memory: about 10 MB when full. Only requests
// that passed every other check take a place in it.
const replayCapacity = 100_000

// A Server is an authorization server. It is safe for concurrent use.
type Server struct {
	cfg     Config // with the defaults filled in
	clients map[string]Client
	methods []string // the authentication methods that some client is registered for
	routes  serve.Routes

	trust    atomic.Pointer[trust]
	verifier *verifier // of what is sent to the server's own endpoints
	resource *resource // nil: none
	metadata metadata
	tokens   *tokenSigner
	refresh  *refreshTokens
	requests handles[*pushedRequest] // by request_uri
	codes    handles[*pushedRequest]

	tokenEndpoint string
	parEndpoint   string
}

// New checks the configuration and returns a Server. It sends nothing and
// starts nothing: the caller serves it as an [http.Handler] under its Issuer.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	issuer, err := endpoint.ParseIdentifier(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("authserver: issuer %w", err)
	}
	if min(cfg.MaxAttestationAge, cfg.ProofWindow, cfg.TokenLifetime) < 0 || cfg.Challenges != nil && cfg.Challenges.Lifetime < 0 {
		return nil, errors.New("authserver: a duration is negative")
	}
	if err := cfg.checkAlgorithms(); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	trust, err := newTrust(cfg.AttesterKeys, cfg.AttesterRoots, cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	tokens, err := newTokenSigner()
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	s := &Server{
		cfg:      cfg,
		clients:  make(map[string]Client),
		tokens:   tokens,
		refresh:  newRefreshTokens(cfg.Now),
		requests: newHandles[*pushedRequest](pushedLifetime, maxPushedRequests, cfg.Now),
		codes:    newHandles[*pushedRequest](codeLifetime, maxPushedRequests, cfg.Now),
	}
	s.trust.Store(trust)
	s.verifier = newVerifier(cfg, cfg.Issuer, &s.trust)
	if err := s.register(cfg.Clients); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}

	base, path := strings.TrimSuffix(cfg.Issuer, "/"), strings.TrimSuffix(issuer.Path, "/")
	s.tokenEndpoint, s.parEndpoint = base+"/token", base+"/par"
	s.routes = serve.Routes{
		"/.well-known/oauth-authorization-server" + path: {Method: http.MethodGet, Handler: s.serveMetadata},
		path + "/token": {Method: http.MethodPost, Handler: s.serveToken},
		path + "/jwks":  {Method: http.MethodGet, Handler: s.serveJWKS},
	}
	if s.verifier.challengeEndpoint(base) != "" {
		s.routes[path+"/challenge"] = serve.Route{Method: http.MethodPost, Handler: s.verifier.serveChallenge}
	}
	if s.grantsCodes() {
		s.routes[path+"/par"] = serve.Route{Method: http.MethodPost, Handler: s.servePushed}
		s.routes[path+"/authorize"] = serve.Route{Method: http.MethodGet, Handler: s.serveAuthorization}
	}
	if cfg.Resource != nil {
		if err := s.addResource(*cfg.Resource, issuer); err != nil {
			return nil, fmt.Errorf("authserver: %w", err)
		}
	}
	s.metadata = s.newMetadata(base)
	return s, nil
}

// Resource returns the identifier of the resource, "" if there is none.
func (s *Server) Resource() string {
	if s.resource == nil {
		return ""
	}
	return s.resource.audience
}

// ServeHTTP serves the endpoints, on exact paths only, and what is the
// resource's of all other paths.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, isEndpoint := s.routes[r.URL.Path]; !isEndpoint && s.resource.has(r.URL.Path) {
		s.resource.ServeHTTP(w, r)
		return
	}
	s.routes.ServeHTTP(w, r)
}

func (cfg Config) withDefaults() Config {
	defaultAlgorithms := []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
	for _, list := range []*[]jose.SignatureAlgorithm{&cfg.AttestationAlgorithms, &cfg.ProofAlgorithms} {
		if *list == nil {
			*list = defaultAlgorithms
		}
		*list = slices.Clone(*list)
	}
	if cfg.ProofWindow == 0 {
		cfg.ProofWindow = time.Minute
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = 5 * time.Minute
	}
	cfg.Challenges = cfg.Challenges.withDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

func (cfg *Config) checkAlgorithms() error {
	algorithms := slices.Concat(cfg.AttestationAlgorithms, cfg.ProofAlgorithms)
	for _, alg := range algorithms {
		if alg == "" || alg == "none" || strings.HasPrefix(string(alg), "HS") {
			return fmt.Errorf("algorithm %q is not a digital signature", alg)
		}
	}
	if len(cfg.AttestationAlgorithms) == 0 || len(cfg.ProofAlgorithms) == 0 {
		return errors.New("no algorithm is accepted: leave the lists nil for the default")
	}
	return nil
}
