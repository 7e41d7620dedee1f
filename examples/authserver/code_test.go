// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

const (
	redirectURI  = "https://app.example.com/cb?app=1"
	codeVerifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
)

// newCodeFixture makes a server that grants codes to the client, with a
// resource, changed by configure.
func newCodeFixture(t testing.TB, configure func(*authserver.Config)) *fixture {
	return newResourceFixture(t, func(cfg *authserver.Config) {
		cfg.Clients[0].RedirectURIs = []string{redirectURI}
		if configure != nil {
			configure(cfg)
		}
	})
}

// push is a pushed authorization request that is right in every respect.
func (f *fixture) push() *call {
	c := f.pop()
	challenge := sha256.Sum256([]byte(codeVerifier))
	c.url = issuer + "/par"
	c.form = url.Values{
		"client_id": {clientID}, "response_type": {"code"}, "redirect_uri": {redirectURI}, "scope": {"read"}, "state": {"s t"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	return c
}

// pushed sends a pushed request, which must succeed, and returns its request_uri.
func (f *fixture) pushed(c *call) string {
	f.t.Helper()
	w := f.send(c)
	answer := body(f.t, w)
	requestURI, _ := answer["request_uri"].(string)
	if w.Code != http.StatusCreated || requestURI == "" || answer["expires_in"] != 60.0 || w.Header().Get("Cache-Control") != "no-store" {
		f.t.Fatalf("pushed request: %d %v, logged %v", w.Code, answer, f.lastRecord())
	}
	return requestURI
}

func (f *fixture) authorize(client, requestURI string) *httptest.ResponseRecorder {
	query := url.Values{"client_id": {client}, "request_uri": {requestURI}}
	return f.do(httptest.NewRequest(http.MethodGet, issuer+"/authorize?"+query.Encode(), nil))
}

// code returns the code for a request_uri.
func (f *fixture) code(requestURI string) string {
	f.t.Helper()
	w := f.authorize(clientID, requestURI)
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != http.StatusSeeOther {
		f.t.Fatalf("authorization endpoint: %d, %v, logged %v", w.Code, err, f.lastRecord())
	}
	query := to.Query()
	code := query.Get("code")
	query.Del("code")
	to.RawQuery = ""
	if want := (url.Values{"app": {"1"}, "iss": {issuer}, "state": {"s t"}}); to.String() != "https://app.example.com/cb" || !reflect.DeepEqual(query, want) || code == "" {
		f.t.Fatalf("redirect to %s with %v", to, query)
	}
	return code
}

// redeem is a token request for a code that is right in every respect.
func (f *fixture) redeem(code string) *call {
	c := f.pop()
	c.form = url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {codeVerifier},
	}
	return c
}

func TestCode(t *testing.T) {
	f := newCodeFixture(t, nil)
	push := f.push()
	push.form.Set("resource", resourceID)
	answer := f.grant(f.redeem(f.code(f.pushed(push))))
	if answer["scope"] != "read" || answer["refresh_token"] == nil {
		t.Errorf("answer %v, want the scope that was pushed, and a refresh token", answer)
	}
	f.wantServed(f.send(f.withToken(f.pop(), answer)), clientID)

	// RFC 9449, section 10: with a DPoP proof, or dpop_jkt, the code is bound.
	for name, bind := range map[string]func(*call){
		"proof":    func(c *call) { f.withDPoP(c, f.dpop).dpop.claims["htu"] = issuer + "/par" },
		"dpop_jkt": func(c *call) { c.form.Set("dpop_jkt", thumbprint(t, f.dpop)) },
	} {
		push = f.push()
		bind(push)
		first := f.code(f.pushed(push))
		f.wantRefusal(f.send(f.redeem(first)), badRequest, "invalid_grant", "RFC 9449 10", "another DPoP key")
		push = f.push()
		bind(push)
		if answer := f.grant(f.withDPoP(f.redeem(f.code(f.pushed(push))), f.dpop)); answer["token_type"] != "DPoP" {
			t.Errorf("%s: answer %v", name, answer)
		}
	}

	metadata := body(t, f.do(httptest.NewRequest(http.MethodGet, issuer+"/.well-known/oauth-authorization-server", nil)))
	for name, want := range (object{
		"authorization_endpoint": issuer + "/authorize", "pushed_authorization_request_endpoint": issuer + "/par",
		"require_pushed_authorization_requests": true, "response_types_supported": []any{"code"},
		"code_challenge_methods_supported": []any{"S256"}, "authorization_response_iss_parameter_supported": true,
		"grant_types_supported": []any{"client_credentials", "refresh_token", "authorization_code"},
	}) {
		if !reflect.DeepEqual(metadata[name], want) {
			t.Errorf("metadata has %s %v, want %v", name, metadata[name], want)
		}
	}
}

func TestPushedRequestRules(t *testing.T) {
	set := func(name, value string) func(*fixture, *call) {
		return func(f *fixture, c *call) { c.form.Set(name, value) }
	}
	for _, tc := range []struct {
		name, code, rule, reason string
		corrupt                  func(*fixture, *call)
	}{
		{"7.2(4) PoP by another key", attestation, "7.2(4)", "signature", func(f *fixture, c *call) { c.pop.key = f.dpop }},
		{"req_hash of another body", attestation, "req_hash", "changed", func(f *fixture, c *call) { c.pop.claims["req_hash"] = halfHash(nil) }},
		{"6749 client without redirect URIs", "unauthorized_client", "RFC 6749 4.1", "not registered", func(f *fixture, c *call) {
			c.form.Set("client_id", dpopID)
			c.pop, c.attestation.claims["sub"] = nil, dpopID
			f.withDPoP(c, f.instance).dpop.claims["htu"] = c.url
		}},
		{"6749 no client_id", "invalid_request", "RFC 6749 4.1.1", "client_id", set("client_id", "")},
		{"6749 response_type", "unsupported_response_type", "RFC 6749 4.1.1", "token", set("response_type", "token")},
		{"6749 redirect_uri", "invalid_request", "RFC 6749 4.1.1", "redirect_uri", set("redirect_uri", redirectURI+"/")},
		{"6749 scope", "invalid_scope", "RFC 6749 3.3", "admin", set("scope", "admin")},
		{"7636 no PKCE", "invalid_request", "RFC 7636 4.3", "S256", set("code_challenge_method", "")},
		{"7636 plain", "invalid_request", "RFC 7636 4.3", "S256", set("code_challenge_method", "plain")},
		{"7636 no challenge", "invalid_request", "RFC 7636 4.3", "code_challenge", set("code_challenge", "")},
		{"8707 resource", "invalid_target", "RFC 8707 2", "not known", set("resource", issuer)},
		{"9126 request_uri", "invalid_request", "RFC 9126 2.1", "request_uri", set("request_uri", "x")},
		{"9449 dpop_jkt of another key", "invalid_dpop_proof", "RFC 9449 10.1", "dpop_jkt", func(f *fixture, c *call) {
			f.withDPoP(c, f.dpop).dpop.claims["htu"] = c.url
			c.form.Set("dpop_jkt", thumbprint(f.t, f.instance))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newCodeFixture(t, nil)
			c := f.push()
			tc.corrupt(f, c)
			f.wantRefusal(f.send(c), badRequest, tc.code, tc.rule, tc.reason)
		})
	}
}

func TestAuthorizationEndpoint9126(t *testing.T) {
	f := newCodeFixture(t, nil)
	refused := func(client, requestURI, reason string) {
		t.Helper()
		f.wantRefusal(f.authorize(client, requestURI), badRequest, "invalid_request", "RFC 9126 4", reason)
	}
	requestURI := f.pushed(f.push())
	refused(clientID, "", "must be pushed")
	refused(clientID, requestURI+"x", "unknown")
	refused(dpopID, requestURI, "another client") // and does not use it up
	f.code(requestURI)
	refused(clientID, requestURI, "used already")
	requestURI = f.pushed(f.push())
	f.now = f.now.Add(time.Minute)
	refused(clientID, requestURI, "expired")

	f = newFixture(t, nil) // no redirect URIs
	for _, path := range []string{"/par", "/authorize"} {
		if w := f.do(httptest.NewRequest(http.MethodPost, issuer+path, nil)); w.Code != http.StatusNotFound {
			t.Errorf("%s answers %d, though nobody may use it", path, w.Code)
		}
	}
	f.wantRefusal(f.send(f.redeem("x")), badRequest, "unsupported_grant_type", "RFC 6749 5.2", "authorization_code")
}

// TestCodeRules: what a code is not good for, and whether the attempt has used
// it up.
func TestCodeRules(t *testing.T) {
	for _, tc := range []struct {
		name, code, rule, reason string
		corrupt                  func(*fixture, *call)
		usedUp                   bool
	}{
		{"6749 no code", "invalid_request", "RFC 6749 4.1.3", "no code", func(f *fixture, c *call) { c.form.Del("code") }, false},
		{"6749 unknown code", "invalid_grant", "RFC 6749 4.1.3", "unknown", func(f *fixture, c *call) { c.form.Set("code", "x") }, false},
		{"6749 old code", "invalid_grant", "RFC 6749 4.1.3", "expired", func(f *fixture, c *call) {
			f.now = f.now.Add(time.Minute - 1)
			c.pop.claims["iat"] = f.now.Unix()
		}, true},
		{"S13 code of another client", "invalid_grant", "RFC 6749 4.1.3", "another client", func(f *fixture, c *call) {
			c.pop, c.attestation.claims["sub"] = nil, dpopID
			f.withDPoP(c, f.instance)
		}, false},
		{"S13 another instance's code", "invalid_grant", "10.4", "another Client Instance Key", func(f *fixture, c *call) {
			c.attestation.claims["cnf"], c.pop.key = object{"jwk": publicJWK(f.t, f.dpop)}, f.dpop
		}, false},
		{"6749 redirect_uri", "invalid_grant", "RFC 6749 4.1.3", "redirect_uri", func(f *fixture, c *call) { c.form.Del("redirect_uri") }, true},
		{"7636 code_verifier", "invalid_grant", "RFC 7636 4.6", "code_verifier", func(f *fixture, c *call) { c.form.Set("code_verifier", "x") }, true},
		{"6749 more scope", "invalid_scope", "RFC 6749 3.3", "write", func(f *fixture, c *call) { c.form.Set("scope", "read write") }, true},
		{"8707 a resource not pushed", "invalid_target", "RFC 8707 2.2", "not granted", func(f *fixture, c *call) { c.form.Set("resource", resourceID) }, true},
		{"6749 used already", "invalid_grant", "RFC 6749 4.1.3", "used already", func(f *fixture, c *call) { f.grant(f.redeem(c.form.Get("code"))) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newCodeFixture(t, nil)
			code := f.code(f.pushed(f.push()))
			f.now = f.now.Add(1) // so that PoP and challenge are younger than the code
			c := f.redeem(code)
			tc.corrupt(f, c)
			f.wantRefusal(f.send(c), badRequest, tc.code, tc.rule, tc.reason)
			if w := f.send(f.redeem(code)); (w.Code != http.StatusOK) != tc.usedUp {
				t.Errorf("then the right request gets %d, logged %v", w.Code, f.lastRecord())
			}
		})
	}
}
