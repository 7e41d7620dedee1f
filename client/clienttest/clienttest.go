// SPDX-License-Identifier: Apache-2.0

// Package clienttest has what a hermetic test of an app needs around package client: a
// Client Attester, an authorization server and a protected resource, on loopback
// addresses, until the test ends. All three are strict. A request that breaks the draft
// or an RFC is refused, as it would be in the field.
//
//	func TestReading(t *testing.T) {
//		services := clienttest.New(t, clienttest.Config{})
//		c, err := client.New(t.Context(), services.ClientConfig())
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer c.Close()
//		resp, err := c.ResourceClient("readings.write").Get(services.Resource.URL)
//		// …
//	}
//
// The authorization server runs these grants: client credentials, authorization code
// (with PKCE, and with pushed authorization requests), device authorization, and refresh
// tokens. The user who authorizes a client is a GET: of the authorization URL, or of the
// device's verification_uri_complete. [Services.Consent] says what the user answers.
//
// Package transporttest judges the requests, and can do more than this package shows:
// challenges that are good once, nonces, refusals, dead connections. A test reaches it by
// [Config].Policy and [Services].Server.
//
// The keys here are in software. For a test with a TPM give client.Config.Store a Store
// of package tpm, over swtpm for example.
package clienttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// Config configures Services. The zero value is one client of an ordinary server, and an
// ordinary API.
type Config struct {
	// ClientID is the client_id of the only client. "" means "client".
	ClientID string

	// Policy is how the authorization server behaves. The zero value is strict, without
	// malice: no good challenge is refused at random here. Answer is this package's own,
	// and must be nil.
	Policy transporttest.Policy

	// TokenLifetime is how long access tokens are good. 0 means 5 minutes.
	TokenLifetime time.Duration

	// AttestedResource makes the resource ask for the attestation in its metadata, and
	// refuse requests without it.
	AttestedResource bool

	// API serves the requests that the resource accepts. Nil answers 200, without a body.
	API http.Handler

	// Clock is the clock of all three services, and of ClientConfig. Nil means time.Now.
	Clock func() time.Time
}

// Services are the three services. They are safe for concurrent use.
type Services struct {
	Attester *Attester
	Server   *transporttest.Server // the authorization server, which records its requests
	Resource *Resource

	tb     testing.TB
	clock  func() time.Time
	grants *grants
}

// New starts the services. They last until the test ends.
func New(tb testing.TB, cfg Config) *Services {
	tb.Helper()
	if cfg.Policy.Answer != nil {
		tb.Fatal("clienttest: Config.Policy.Answer is set: this package answers")
	}
	s := &Services{tb: tb, clock: cfg.Clock}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = 5 * time.Minute
	}
	g := newGrants(cfg)
	s.grants, cfg.Policy.Answer = g, g.answer
	cfg.Policy.NoRandomRefusals = true
	s.Server = transporttest.New(tb, transporttest.Config{
		Policy:    cfg.Policy,
		ClientID:  cfg.ClientID,
		Clock:     cfg.Clock,
		Seed:      1, // of paths and challenges; nothing is left to chance
		Endpoints: []string{DeviceAuthorization},
		Pages: map[string]http.Handler{
			Authorization: http.HandlerFunc(g.authorize),
			verification:  http.HandlerFunc(g.verify),
		},
	})
	g.clientID, g.verificationURL = s.Server.ClientID, s.Server.Endpoint(verification)
	s.Attester = newAttester(tb, s.Server, cfg.Clock)
	s.Resource = newResource(tb, cfg, s.Server, g)
	return s
}

// ClientConfig returns the configuration of a client that fits the services, with a new
// key in software. The test may change it: an app that has a Store sets Key to nil.
func (s *Services) ClientConfig() client.Config {
	s.tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	key, err := keystore.FromSigner(private)
	if err != nil {
		s.tb.Fatal(err)
	}
	return client.Config{
		Issuer:    s.Server.Issuer,
		ClientID:  s.Server.ClientID,
		Key:       key,
		Attester:  client.HTTPAttester{URL: s.Attester.URL},
		Resources: []client.Resource{{Identifier: s.Resource.URL}},
		Clock:     s.clock,
	}
}

// Consent says what the user answers from now on. At first that is true, for yes.
func (s *Services) Consent(yes bool) {
	s.grants.mu.Lock()
	defer s.grants.mu.Unlock()
	s.grants.denied = !yes
}

// RevokeTokens makes all access tokens bad that were issued so far, and leaves refresh
// tokens good.
func (s *Services) RevokeTokens() {
	s.grants.mu.Lock()
	defer s.grants.mu.Unlock()
	clear(s.grants.accessTokens)
}

// RevokeAll makes all access and refresh tokens bad that were issued so far.
func (s *Services) RevokeAll() {
	s.RevokeTokens()
	s.grants.mu.Lock()
	defer s.grants.mu.Unlock()
	clear(s.grants.refreshTokens)
}
