// SPDX-License-Identifier: Apache-2.0

// Package attester is a reference Client Attester: it answers a Client Instance
// that proves control of its key with a Client Attestation JWT
// (draft-ietf-oauth-attestation-based-client-auth-11, section 4).
//
// How an instance and its attester talk is not part of that draft. Here it is
// POST requests with JSON bodies, below the attester's URL; PROTOCOL.md has the
// details:
//
//	POST {url}/tpm/attest            {"ek", "ekCerts", "params"}  → {"session", "credential", "secret"}
//	POST {url}/tpm/secret            {"session", "secret"}        → {"chain"}
//	POST {url}/challenge             → {"challenge", "expires_in", "pcrs"}
//	POST {url}/client-attestation    {"request": JWS}  → {"client_attestation", "expires_in"}
//
// The JWS is signed with the Client Instance Key and carries its public half,
// and evidence of where that key lives and what the device has booted. The first
// two requests come once for each TPM, the other two for each attestation. GET
// {url}/jwks publishes the key that verifies attestations. [Server.Provision]
// makes an instance's key and attestation without any request, for devices that
// are provisioned beforehand.
//
//   - request.go: what a request must be
//   - evidence/: whether the evidence holds, and which claims follow
//   - attestation.go: the Client Attestation JWT
//   - enrol.go: a certificate for a TPM's attestation key
//   - provision.go: step (f)
//   - errors.go: error codes
package attester

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/serve"
	"github.com/instancekey/instancekey/internal/endpoint"
)

// Config describes a Server. URL, Clients and Key are required.
type Config struct {
	// URL identifies the attester: the aud of requests to it, and the base of
	// its endpoints. An https URL, or http on loopback.
	URL string
	// Clients are the client_ids that it attests instances of.
	Clients []string
	// Key signs attestations: a private ECDSA or Ed25519 JWK. Its KeyID is sent as
	// kid, its Certificates as x5c, without a trust anchor at their end (see
	// keystore.X5C); one of the two it must have.
	Key jose.JSONWebKey

	// Evidence verifies the evidence in a request, which is then required. Nil:
	// requests must carry no evidence, and every key is attested whose holder
	// asks, which is for demonstrations only.
	Evidence *evidence.Verifier

	// Lifetime is that of attestations. 0 means 1 hour.
	Lifetime time.Duration
	// Rounding makes iat and exp multiples of it, both rounded down, so that those of
	// one instance are those of many (-12, section 11.1). At most half of Lifetime,
	// in whole seconds. 0 means no rounding.
	Rounding time.Duration
	// Claims are what the vendor states in all attestations. They replace none of
	// the draft's claims, nor of those that evidence justifies. Nil means none.
	Claims map[string]any
	// Issuer is put into attestations as iss. The draft defines no such claim
	// since -08; OpenID4VCI 1.0, which refers to -07, requires it. "": left out.
	Issuer string

	// Logger receives one record for each attestation and for each refusal,
	// with its reason. Nil: slog.Default.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

const (
	challengeLifetime = 5 * time.Minute
	sessionLifetime   = 5 * time.Minute
	clockSkew         = 10 * time.Second

	// replayCapacity bounds how many attestations are issued within the lifetime
	// of a challenge, and maxAnswered how many TPMs are enrolled within that of a
	// session: 25 MB and 5 MB when full. Only who has proved his TPM takes a place.
	replayCapacity = 500_000
	maxAnswered    = 100_000
)

// A Server is a Client Attester. It is safe for concurrent use.
type Server struct {
	cfg        Config
	signer     jose.Signer
	challenges *freshness.Challenges
	spent      *freshness.Seen   // challenges
	sessions   *freshness.Sealer // enrolments that wait for the device's answer
	answered   *freshness.Seen   // sessions
	routes     serve.Routes
}

// New checks the configuration and returns a Server. It sends nothing and
// starts nothing: the caller serves it as an [http.Handler] under its URL.
func New(cfg Config) (*Server, error) {
	identifier, err := endpoint.ParseIdentifier(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("attester: URL %w", err)
	}
	if len(cfg.Clients) == 0 || slices.Contains(cfg.Clients, "") {
		return nil, errors.New("attester: Clients is empty, or has an empty client_id")
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = time.Hour
	}
	if cfg.Lifetime < time.Second {
		return nil, errors.New("attester: Lifetime is shorter than a second")
	}
	if cfg.Rounding < 0 || cfg.Rounding%time.Second != 0 || cfg.Rounding > cfg.Lifetime/2 {
		return nil, errors.New("attester: Rounding must be whole seconds, and at most half of Lifetime")
	}
	for _, name := range []string{"iss", "sub", "iat", "exp", "cnf"} {
		if _, ok := cfg.Claims[name]; ok {
			return nil, fmt.Errorf("attester: Claims has %s, which is not the vendor's to set", name)
		}
	}
	cfg.Claims = maps.Clone(cfg.Claims)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Clients = slices.Clone(cfg.Clients)
	signer, err := newSigner(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("attester: Key: %w", err)
	}
	clock := freshness.Monotone(cfg.Now)
	s := &Server{
		cfg:        cfg,
		signer:     signer,
		challenges: freshness.NewChallenges(challengeLifetime, clock),
		spent:      freshness.NewSeen(challengeLifetime, replayCapacity, clock),
		sessions:   freshness.NewSealer(sessionLifetime, clock),
		answered:   freshness.NewSeen(sessionLifetime, maxAnswered, clock),
	}
	path := strings.TrimSuffix(identifier.Path, "/")
	s.routes = serve.Routes{
		path + "/challenge":          {Method: http.MethodPost, Handler: s.serveChallenge},
		path + "/client-attestation": {Method: http.MethodPost, Handler: s.serveClientAttestation},
		path + "/jwks":               {Method: http.MethodGet, Handler: s.serveJWKS},
	}
	if cfg.Evidence != nil {
		s.routes[path+"/tpm/attest"] = serve.Route{Method: http.MethodPost, Handler: s.serveEnrol}
		s.routes[path+"/tpm/secret"] = serve.Route{Method: http.MethodPost, Handler: s.serveActivate}
	}
	return s, nil
}

// ServeHTTP serves the endpoints, on exact paths only.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.routes.ServeHTTP(w, r)
}

// JWKS returns the public key that verifies this attester's attestations, with alg
// and use, which some servers do not do without.
func (s *Server) JWKS() jose.JSONWebKeySet {
	key := s.cfg.Key.Public()
	if alg, err := algorithmOf(key.Key); err == nil {
		key.Algorithm, key.Use = string(alg), "sig"
	}
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}}
}

func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	serve.JSON(w, http.StatusOK, s.JWKS())
}

func (s *Server) serveChallenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	answer := struct {
		Challenge string `json:"challenge"`
		ExpiresIn int64  `json:"expires_in"` // seconds
		// PCRs are those to be quoted. That there is a list, even an empty one,
		// says that evidence is wanted.
		PCRs *[]int `json:"pcrs,omitempty"`
	}{Challenge: s.challenges.New(), ExpiresIn: int64(challengeLifetime.Seconds())}
	if s.cfg.Evidence != nil {
		pcrs := s.cfg.Evidence.PCRs()
		answer.PCRs = &pcrs
	}
	serve.JSON(w, http.StatusOK, answer)
}

// serveClientAttestation is steps (b), (c) and (d).
func (s *Server) serveClientAttestation(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	request, err := s.readRequest(w, r)
	if err != nil {
		s.writeError(r.Context(), w, "client attestation", err)
		return
	}
	verified, err := s.verify(request)
	if err == nil {
		err = spend(s.spent, request.challenge, codeInvalidChallenge)
	}
	known := append([]slog.Attr{
		slog.String("client_id", request.clientID), slog.String("instance_key", request.thumbprint), slog.String("ek", verified.EK),
	}, verified.Details...)
	if err != nil {
		s.writeError(r.Context(), w, "client attestation", err, known...)
		return
	}
	attestation, err := s.issue(request.clientID, request.key, s.cfg.Lifetime, verified.Claims)
	if err != nil {
		s.writeError(r.Context(), w, "client attestation", err, known...)
		return
	}
	s.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "client attestation issued", known...)
	serve.JSON(w, http.StatusOK, struct {
		ClientAttestation string `json:"client_attestation"`
		ExpiresIn         int64  `json:"expires_in"` // seconds
	}{attestation, int64(s.cfg.Lifetime.Seconds())})
}

// verify is step (c).
func (s *Server) verify(request *request) (evidence.Result, error) {
	switch {
	case s.cfg.Evidence == nil && len(request.evidence) > 0:
		// Ignoring it would let the sender believe that it counted.
		return evidence.Result{}, refuse(evidence.CodeUnsupportedEvidence, "request has evidence, and this attester verifies none")
	case s.cfg.Evidence == nil:
		return evidence.Result{}, nil
	case len(request.evidence) == 0:
		return evidence.Result{}, refuse(evidence.CodePlatformEvidenceRequired, "request has no evidence")
	}
	return s.cfg.Evidence.Verify(evidence.Request{
		Challenge:  request.challenge,
		Key:        request.key,
		Thumbprint: request.thumbprint,
		Evidence:   request.evidence,
	})
}
