// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func issuer(value string) func(*client.Config) {
	return func(cfg *client.Config) { cfg.Issuer = value }
}

func TestNewRefusesBadInput(t *testing.T) {
	for name, edit := range map[string]func(*client.Config){
		"no issuer":                      issuer(""),
		"issuer is http":                 issuer("http://as.example.com"),
		"issuer is http, almost local":   issuer("http://localhost.example.com"),
		"issuer is http, looks numeric":  issuer("http://127.0.0.1.example.com"),
		"issuer with user":               issuer("https://user@as.example.com"),
		"issuer with password":           issuer("https://user:word@as.example.com"),
		"issuer with query":              issuer("https://as.example.com/?tenant=1"),
		"issuer with empty query":        issuer("https://as.example.com/?"),
		"issuer with fragment":           issuer("https://as.example.com/#tenant"),
		"issuer with empty fragment":     issuer("https://as.example.com/#"),
		"issuer without scheme":          issuer("as.example.com"),
		"issuer without host":            issuer("https:///tenant"),
		"issuer with port alone":         issuer("https://:443/"),
		"issuer is a path":               issuer("/tenant"),
		"issuer is opaque":               issuer("https:as.example.com"),
		"issuer of another scheme":       issuer("ftp://as.example.com"),
		"issuer with control character":  issuer("https://as.example.com/\x00"),
		"issuer with newline":            issuer("https://as.example.com/\r\nHost: other"),
		"issuer with bad escape":         issuer("https://as.example.com/%zz"),
		"issuer's host is not ASCII":     issuer("https://\u0130ssuer.example.com"),
		"no client_id":                   func(cfg *client.Config) { cfg.ClientID = "" },
		"no attester":                    func(cfg *client.Config) { cfg.Attester = nil },
		"no store and no key":            func(cfg *client.Config) { cfg.Store = nil },
		"cache in no folder":             func(cfg *client.Config) { cfg.Cache = client.DirCache("") },
		"unknown method":                 func(cfg *client.Config) { cfg.Method = "private_key_jwt" },
		"method in another case":         func(cfg *client.Config) { cfg.Method = "ATTEST_JWT_CLIENT_AUTH" },
		"unknown profile":                func(cfg *client.Config) { cfg.Profile = "draft-9" },
		"unknown DPoP setting":           func(cfg *client.Config) { cfg.DPoP = 17 },
		"proofs signed behind":           func(cfg *client.Config) { cfg.SignAhead = -1 },
		"proofs signed long ahead":       func(cfg *client.Config) { cfg.SignAhead = time.Minute + 1 },
		"negative DPoP setting":          func(cfg *client.Config) { cfg.DPoP = -1 },
		"key name with slash":            func(cfg *client.Config) { cfg.KeyName = "a/b" },
		"key name with backslash":        func(cfg *client.Config) { cfg.KeyName = `a\b` },
		"key name is the parent folder":  func(cfg *client.Config) { cfg.KeyName = ".." },
		"key name with leading dot":      func(cfg *client.Config) { cfg.KeyName = ".key" },
		"key name with NUL":              func(cfg *client.Config) { cfg.KeyName = "a\x00b" },
		"key name of 129 bytes":          func(cfg *client.Config) { cfg.KeyName = strings.Repeat("a", 129) },
		"metadata of another issuer":     metadata(func(m *client.Metadata) { m.Issuer += "/" }),
		"metadata without endpoint":      metadata(func(m *client.Metadata) { m.TokenEndpoint = "" }),
		"metadata with http endpoint":    metadata(func(m *client.Metadata) { m.RevocationEndpoint = "http://as.example.com/" }),
		"metadata without our method":    metadata(func(m *client.Metadata) { m.TokenEndpointAuthMethods = []string{"private_key_jwt"} }),
		"combined mode, bodies bound":    func(cfg *client.Config) { cfg.BindBody, cfg.Method = true, transport.MethodDPoP },
		"metadata of combined mode, too": boundInCombinedMode,
		"resource is http":               func(cfg *client.Config) { cfg.Resources = []client.Resource{{Identifier: "http://rs.example.com"}} },
		"resource with fragment":         func(cfg *client.Config) { cfg.Resources = []client.Resource{{Identifier: "https://rs.example.com/#a"}} },
		"resource with query":            func(cfg *client.Config) { cfg.Resources = []client.Resource{{Identifier: "https://rs.example.com/?a"}} },
		"one resource of two is no URL": func(cfg *client.Config) {
			cfg.Resources = []client.Resource{{Identifier: "https://rs.example.com"}, {Identifier: "rs"}}
		},
		"attester without URL":           func(cfg *client.Config) { cfg.Attester = client.HTTPAttester{} },
		"attester over http":             func(cfg *client.Config) { cfg.Attester = client.HTTPAttester{URL: "http://attester.example.com"} },
		"attester over http, by pointer": func(cfg *client.Config) { cfg.Attester = &client.HTTPAttester{URL: "http://attester.example.com"} },
		"self-attester without key":      func(cfg *client.Config) { cfg.Attester = client.SelfAttester{} },
		"nothing provisioned":            func(cfg *client.Config) { cfg.Attester = client.PushAttester{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			edit(&cfg)
			c, err := client.New(t.Context(), cfg)
			if err == nil || c != nil {
				t.Errorf("New made a client, error %v", err)
			}
			if n := r.store.creates.Load(); n != 0 {
				t.Errorf("%d keys created, want 0", n)
			}
			if n := r.total(); n != 0 {
				t.Errorf("%d requests sent, want 0", n)
			}
			if n := len(r.attester.calls()); n != 0 {
				t.Errorf("attester asked %d times, want 0", n)
			}
			if err != nil && (len(err.Error()) > 400 || strings.Contains(err.Error(), "word")) {
				t.Errorf("error is long or tells a password: %v", err)
			}
		})
	}
}

// boundInCombinedMode is a server that offers nothing else, to a client that is
// to bind bodies.
func boundInCombinedMode(cfg *client.Config) {
	metadata(func(m *client.Metadata) { m.TokenEndpointAuthMethods = []string{combined} })(cfg)
	cfg.BindBody = true
}

// metadata gives good metadata with one thing changed.
func metadata(edit func(*client.Metadata)) func(*client.Config) {
	return func(cfg *client.Config) {
		cfg.Metadata = &client.Metadata{Issuer: cfg.Issuer, TokenEndpoint: cfg.Issuer + "/token"}
		edit(cfg.Metadata)
	}
}

func TestNewTakesLoopbackIssuers(t *testing.T) {
	for _, value := range []string{
		"http://localhost", "http://LOCALHOST:8080/tenant", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:8080",
		"https://as.example.com", "https://as.example.com:8443/tenant/", "https://192.0.2.1", "https://xn--issuer-pyd.example",
	} {
		t.Run(value, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.client(t, issuer(value))
			if n := r.total(); n != 0 {
				t.Errorf("New sent %d requests, want 0", n)
			}
		})
	}
}

func TestNewDoesNotKeepContext(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.New(ctx, r.config())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	if _, err := c.Token(t.Context()); err != nil {
		t.Errorf("after the end of New's context: %v", err)
	}

	cfg := r.config()
	cfg.KeyName = "another"
	if _, err := client.New(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("New with a cancelled context: %v, want context.Canceled", err)
	}
}

func TestNewCopiesMetadata(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	given := &client.Metadata{
		Issuer:                 r.Issuer,
		TokenEndpoint:          r.Endpoint(transporttest.Token),
		ChallengeEndpoint:      r.Endpoint(transporttest.Challenge),
		AttestationSigningAlgs: []string{"ES256"},
	}
	c := r.client(t, func(cfg *client.Config) { cfg.Metadata = given })
	given.AttestationSigningAlgs[0] = "ES384"
	given.TokenEndpoint = "https://elsewhere.example.com/token"
	if _, err := c.Token(t.Context()); err != nil {
		t.Errorf("a change of the caller's metadata after New has an effect: %v", err)
	}
	if n := r.Count(transporttest.Metadata); n != 0 {
		t.Errorf("%d metadata requests although metadata was given, want 0", n)
	}
}

func TestConstantsAreKnown(t *testing.T) {
	for _, method := range []transport.Method{"", transport.MethodPoP, transport.MethodDPoP} {
		for _, profile := range []transport.Profile{"", transport.ProfileDraft12, transport.ProfileDraft10, transport.ProfileOpenID4VCI} {
			for _, dpop := range []client.DPoP{client.DPoPOff, client.DPoPOwnKey, client.DPoPInstanceKey} {
				r := newRig(t, transporttest.Policy{})
				r.client(t, func(cfg *client.Config) { cfg.Method, cfg.Profile, cfg.DPoP = method, profile, dpop })
			}
		}
	}
}
