// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// A network brings the real client's requests to the server, and counts them.
type network struct {
	*fixture
	onTheWay func(path string, body []byte) []byte // nil: bodies arrive as they were sent

	mu       sync.Mutex
	requests map[string]int // by path
	attested int            // attestations issued
}

func newNetwork(f *fixture) *network { return &network{fixture: f, requests: make(map[string]int)} }

// RoundTrip implements http.RoundTripper.
func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests[r.URL.Path]++
	arrived := httptest.NewRequest(r.Method, r.URL.String(), nil)
	arrived.Header = r.Header
	if r.Body != nil {
		sent, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			return nil, err
		}
		if n.onTheWay != nil {
			sent = n.onTheWay(r.URL.Path, sent)
		}
		arrived.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp := n.do(arrived).Result()
	resp.Request = r
	return resp, nil
}

// Attest implements client.Attester.
func (n *network) Attest(_ context.Context, req client.AttestRequest) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attested++
	attestation := n.pop().attestation
	attestation.claims["sub"] = req.ClientID
	return attestation.compact(n.t), nil
}

func (n *network) client(edit func(*client.Config)) *client.Client {
	n.t.Helper()
	key, err := keystore.FromSigner(n.instance)
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := client.Config{
		Issuer: issuer, ClientID: clientID, Key: key, Attester: n, Base: n, Resources: []client.Resource{{Identifier: resourceID}},
		Clock: func() time.Time { return n.now },
	}
	if edit != nil {
		edit(&cfg)
	}
	c, err := client.New(n.t.Context(), cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// use gets a token and calls the resource with it, and returns the token.
func (n *network) use(c *client.Client, body string) (*oauth2.Token, *http.Response) {
	n.t.Helper()
	token, err := c.Token(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, resourceID+"/readings", strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	token.SetAuthHeader(r)
	resp, err := c.HTTPClient().Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	resp.Body.Close()
	return token, resp
}

func (n *network) wantRequests(want map[string]int) {
	n.t.Helper()
	if !maps.Equal(n.requests, want) {
		n.t.Errorf("requests %v, want %v", n.requests, want)
	}
}

func (n *network) refusals() int { return strings.Count(n.log.String(), `refused"`) }

// TestClientAtResource: cold six requests, three at the server and three at its
// resource, and warm one.
func TestClientAtResource(t *testing.T) {
	allNonces := func(cfg *authserver.Config) { cfg.DPoPNonces, cfg.Resource.DPoPNonces = true, true }
	for name, tc := range map[string]struct {
		configure func(*authserver.Config)
		edit      func(*client.Config)
		tokenType string
	}{
		"bearer":            {nil, nil, "Bearer"},
		"DPoP":              {allNonces, func(c *client.Config) { c.DPoP = client.DPoPOwnKey }, "DPoP"},
		"DPoP instance key": {nil, func(c *client.Config) { c.DPoP = client.DPoPInstanceKey }, "DPoP"},
		"DPoP required": {resource(func(r *authserver.ResourceConfig) { r.DPoPRequired = true }),
			func(c *client.Config) { c.DPoP = client.DPoPOwnKey }, "DPoP"},
		"combined": {allNonces, func(c *client.Config) { c.ClientID, c.Method = dpopID, transport.MethodDPoP }, "DPoP"},
		"combined at the resource": {resource(func(r *authserver.ResourceConfig) { r.Methods = []string{authserver.MethodDPoP} }),
			nil, "Bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(newResourceFixture(t, tc.configure))
			c := n.client(tc.edit)
			for range 3 {
				if token, resp := n.use(c, "on=1"); resp.StatusCode != http.StatusOK || token.TokenType != tc.tokenType {
					t.Fatalf("%s token, status %d, logged %v", token.TokenType, resp.StatusCode, n.lastRecord())
				}
			}
			n.wantRequests(map[string]int{
				"/.well-known/oauth-authorization-server": 1, "/challenge": 1, "/token": 1,
				"/.well-known/oauth-protected-resource/resource": 1, "/resource/challenge": 1, "/resource/readings": 3,
			})
			if n.refusals() != 0 || n.attested != 1 {
				t.Errorf("%d refusals, %d attestations, want 0 and 1: %s", n.refusals(), n.attested, n.log.String())
			}
		})
	}
}

// TestClientStateApart: single-use challenges, on responses only, of two
// servers on one origin: after the first request to each, none is refused.
func TestClientStateApart(t *testing.T) {
	single := &authserver.ChallengeConfig{Responses: true, SingleUse: true}
	n := newNetwork(newResourceFixture(t, func(cfg *authserver.Config) { cfg.Challenges, cfg.Resource.Challenges = single, single }))
	c := n.client(nil)
	const rounds = 4
	for range rounds {
		token, resp := n.use(c, "on=1")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, logged %v", resp.StatusCode, n.lastRecord())
		}
		c.Forget(token)
	}
	n.wantRequests(map[string]int{
		"/.well-known/oauth-authorization-server": 1, "/token": rounds + 1,
		"/.well-known/oauth-protected-resource/resource": 1, "/resource/readings": rounds + 1,
	})
	if n.refusals() != 2 {
		t.Errorf("%d refusals, want those of the first request to each: %s", n.refusals(), n.log.String())
	}
}

// TestClientRenewsForResource: a resource that wants a fresh attestation gets
// one, in two sends.
func TestClientRenewsForResource(t *testing.T) {
	n := newNetwork(newResourceFixture(t, func(cfg *authserver.Config) {
		maxAge(cfg)
		cfg.TokenLifetime, cfg.Resource.Challenges.Lifetime = time.Hour, time.Hour
	}))
	c := n.client(nil)
	n.use(c, "on=1")
	n.now = n.now.Add(11 * time.Minute)
	if _, resp := n.use(c, "on=1"); resp.StatusCode != http.StatusOK || n.requests["/resource/readings"] != 3 || n.attested != 2 {
		t.Errorf("status %d, requests %v, %d attestations; logged %v", resp.StatusCode, n.requests, n.attested, n.lastRecord())
	}
}

// TestClientBindsBody: with BindBody, a body that was changed on the way is
// refused by the server and by the resource.
func TestClientBindsBody(t *testing.T) {
	n := newNetwork(newResourceFixture(t, nil))
	c := n.client(func(cfg *client.Config) { cfg.BindBody = true })
	if _, resp := n.use(c, "on=1"); resp.StatusCode != http.StatusOK {
		t.Errorf("unchanged: status %d, logged %v", resp.StatusCode, n.lastRecord())
	}
	n.onTheWay = func(_ string, body []byte) []byte { return bytes.Replace(body, []byte("on=1"), []byte("on=0"), 1) }
	if _, resp := n.use(c, "on=1"); resp.StatusCode != badClient || n.lastRecord()["rule"] != "req_hash" {
		t.Errorf("changed: status %d, logged %v", resp.StatusCode, n.lastRecord())
	}
	n.onTheWay = func(_ string, body []byte) []byte {
		return bytes.Replace(body, []byte("scope=read"), []byte("scope=write"), 1)
	}
	if _, err := c.Token(t.Context(), "read"); err == nil || n.lastRecord()["rule"] != "req_hash" {
		t.Errorf("token request changed: %v, logged %v", err, n.lastRecord())
	}
}

// TestClientBindsPushedRequest: a gateway that ends TLS changes the scope of a
// pushed request. Client authentication does not notice; the code's token
// request does, if it vouches for what was pushed.
func TestClientBindsPushedRequest(t *testing.T) {
	escalate := func(path string, body []byte) []byte {
		if path == "/par" {
			body = bytes.Replace(body, []byte("scope=read"), []byte("scope=write"), 1)
		}
		return body
	}
	for name, tc := range map[string]struct {
		bind, require bool
		onTheWay      func(string, []byte) []byte
		scope, code   string // of the token, or of the refusal
	}{
		"bound":                 {true, false, nil, "read", ""},
		"bound, changed":        {true, false, escalate, "", attestation},
		"not bound, changed":    {false, false, escalate, "write", ""}, // this is what binding stops
		"bound, as required":    {true, true, nil, "read", ""},
		"not bound, as is must": {false, true, nil, "", attestation},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(newCodeFixture(t, func(cfg *authserver.Config) { cfg.RequireReqHash = tc.require }))
			n.onTheWay = tc.onTheWay
			token, err := n.authorizationCode(n.client(nil), tc.bind)
			switch {
			case tc.code == "" && (err != nil || token.Extra("scope") != tc.scope):
				t.Errorf("token %v, %v; want one for %s", token, err, tc.scope)
			case tc.code != "" && (err == nil || !strings.Contains(err.Error(), tc.code) || n.lastRecord()["rule"] != "req_hash"):
				t.Errorf("got %v, logged %v, want a refusal with %s", err, n.lastRecord(), tc.code)
			}
			if n.requests["/par"] != 1 || n.requests["/token"] != 1 {
				t.Errorf("requests %v, want one to each endpoint", n.requests)
			}
		})
	}
}

// authorizationCode runs the grant with a pushed request for the scope read.
func (n *network) authorizationCode(c *client.Client, bind bool) (*oauth2.Token, error) {
	n.t.Helper()
	ctx := context.WithValue(n.t.Context(), oauth2.HTTPClient, c.HTTPClient())
	at, err := c.Endpoint(ctx)
	if err != nil {
		return nil, err
	}
	verifier := oauth2.GenerateVerifier()
	config := oauth2.Config{ClientID: clientID, Endpoint: at, RedirectURL: redirectURI, Scopes: []string{"read"}}
	unpushed, err := url.Parse(config.AuthCodeURL("s t", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		return nil, err
	}
	message := unpushed.RawQuery
	resp, err := c.HTTPClient().Post(issuer+"/par", "application/x-www-form-urlencoded", strings.NewReader(message))
	if err != nil {
		return nil, err
	}
	w := &httptest.ResponseRecorder{Code: resp.StatusCode, Body: new(bytes.Buffer)}
	if _, err := w.Body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusCreated {
		n.t.Fatalf("pushed request: %d, %v, logged %v", resp.StatusCode, err, n.lastRecord())
	}
	code := n.code(body(n.t, w)["request_uri"].(string))
	if bind {
		ctx = transport.BindMessage(ctx, []byte(message))
	}
	return config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
}
