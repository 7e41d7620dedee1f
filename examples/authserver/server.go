// Package authserver is a reference OAuth 2.0 authorization server with
// attestation-based client authentication
// (draft-ietf-oauth-attestation-based-client-auth-11): strict, small, and laid
// out so that it can be read beside the draft.
//
//   - clientauth.go: which rules apply to a request (section 7)
//   - attestation.go: the Client Attestation JWT (section 7.1)
//   - pop.go: the Client Attestation PoP JWT (section 7.2)
//   - dpop.go: DPoP (RFC 9449), and the combined mode (sections 5.2 and 7.3)
//   - policy.go: what devices must be like: step (5)
//   - challenge.go: challenges (section 6) and DPoP nonces
//   - token.go, refresh.go: the token endpoint; refresh token binding (section 10.3)
//   - metadata.go: RFC 8414 metadata (section 8)
//   - errors.go: the error codes (section 7.4), and what is logged about each refusal
//
// It grants client_credentials and refresh_token. It keeps its state in memory
// and signs with a key that it makes at start: it is for tests, for
// demonstrations, and for whoever writes such a server in earnest.
package authserver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Client authentication methods (section 8).
const (
	MethodPoP  = "attest_jwt_client_auth"      // a Client Attestation PoP JWT
	MethodDPoP = "attest_jwt_client_auth_dpop" // combined mode: a DPoP proof with the Client Instance Key
)

// A Client is one registered OAuth client, which many Client Instances share.
type Client struct {
	// ID is the client_id: the sub of the client's attestations.
	ID string
	// Method is the one authentication method that the client is registered
	// for: MethodPoP (also when empty) or MethodDPoP.
	Method string
	// Scopes are those that the client may have. A request that names none
	// gets all of them.
	Scopes []string
}

// ChallengeConfig says how challenges are handed out (section 6). A server that
// has one demands a challenge in every PoP JWT, and gives a fresh one with
// every use_attestation_challenge error, also when both fields Endpoint and
// Responses are false.
type ChallengeConfig struct {
	Endpoint  bool          // section 6.3: a challenge endpoint, named in the metadata
	Responses bool          // section 6.2: a new one on every response of the token and challenge endpoints
	SingleUse bool          // each challenge is good for one PoP JWT; otherwise for any number
	Lifetime  time.Duration // 0 means 5 minutes
}

// Config describes a Server. Issuer, Clients and one of AttesterKeys and
// AttesterRoots are required; the zero value of every other field is usable.
type Config struct {
	// Issuer is the RFC 8414 issuer identifier: an https URL, or http on
	// loopback. The endpoints are below it: /token, /challenge and /jwks.
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
	// of a trusted attester is served.
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

	metadata          metadata
	tokens            *tokenSigner
	refresh           *refreshTokens
	challenges        *freshness.Challenges // nil: not used
	nonces            *freshness.Challenges // nil: not used
	spentChallenges   *freshness.Seen       // nil: challenges may be used again
	seenPoPs          *freshness.Seen
	seenDPoPProofs    *freshness.Seen
	tokenEndpoint     string
	challengeEndpoint string // "": none
}

// New checks the configuration and returns a Server. It sends nothing and
// starts nothing: the caller serves it as an [http.Handler] under its Issuer.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	issuer, err := serve.CheckIdentifier(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("authserver: issuer: %w", err)
	}
	if min(cfg.MaxAttestationAge, cfg.ProofWindow, cfg.TokenLifetime) < 0 || cfg.Challenges != nil && cfg.Challenges.Lifetime < 0 {
		return nil, errors.New("authserver: a duration is negative")
	}
	if err := cfg.checkTrust(); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	tokens, err := newTokenSigner()
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	s := &Server{
		cfg:     cfg,
		clients: make(map[string]Client),
		tokens:  tokens,
		refresh: newRefreshTokens(cfg.Now),
		// A proof passes the iat check from clockSkew before its iat until
		// ProofWindow after it.
		seenPoPs:       freshness.NewSeen(cfg.ProofWindow+clockSkew, replayCapacity, cfg.Now),
		seenDPoPProofs: freshness.NewSeen(cfg.ProofWindow+clockSkew, replayCapacity, cfg.Now),
	}
	if err := s.register(cfg.Clients); err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}

	base, path := strings.TrimSuffix(cfg.Issuer, "/"), strings.TrimSuffix(issuer.Path, "/")
	s.tokenEndpoint = base + "/token"
	s.routes = serve.Routes{
		"/.well-known/oauth-authorization-server" + path: {Method: http.MethodGet, Handler: s.serveMetadata},
		path + "/token": {Method: http.MethodPost, Handler: s.serveToken},
		path + "/jwks":  {Method: http.MethodGet, Handler: s.serveJWKS},
	}
	if cfg.DPoPNonces {
		s.nonces = freshness.NewChallenges(5*time.Minute, cfg.Now)
	}
	if c := cfg.Challenges; c != nil {
		s.challenges = freshness.NewChallenges(c.Lifetime, cfg.Now)
		if c.SingleUse {
			s.spentChallenges = freshness.NewSeen(c.Lifetime, replayCapacity, cfg.Now)
		}
		if c.Endpoint {
			s.challengeEndpoint = base + "/challenge"
			s.routes[path+"/challenge"] = serve.Route{Method: http.MethodPost, Handler: s.serveChallenge}
		}
	}
	s.metadata = s.newMetadata(base)
	return s, nil
}

// ServeHTTP serves the endpoints, on exact paths only.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	cfg.AttesterKeys.Keys = slices.Clone(cfg.AttesterKeys.Keys)
	if cfg.ProofWindow == 0 {
		cfg.ProofWindow = time.Minute
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = 5 * time.Minute
	}
	if cfg.Challenges != nil {
		challenges := *cfg.Challenges
		if challenges.Lifetime == 0 {
			challenges.Lifetime = 5 * time.Minute
		}
		cfg.Challenges = &challenges
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// register fills in clients and methods.
func (s *Server) register(clients []Client) error {
	if len(clients) == 0 {
		return errors.New("no client is registered")
	}
	for _, c := range clients {
		if c.Method == "" {
			c.Method = MethodPoP
		}
		_, taken := s.clients[c.ID]
		switch {
		case c.ID == "":
			return errors.New("client without an ID")
		case taken:
			return fmt.Errorf("client %q is registered twice", c.ID)
		case c.Method != MethodPoP && c.Method != MethodDPoP:
			return fmt.Errorf("client %q: unknown method %q", c.ID, c.Method)
		}
		c.Scopes = slices.Clone(c.Scopes)
		s.clients[c.ID] = c
		if !slices.Contains(s.methods, c.Method) {
			s.methods = append(s.methods, c.Method)
		}
	}
	slices.Sort(s.methods)
	return nil
}
