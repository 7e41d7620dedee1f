// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/authserver"
)

// TestResourceAccepted has what the rules leave open: each of these is served.
func TestResourceAccepted(t *testing.T) {
	cases := []struct {
		name, kind string
		configure  func(*authserver.Config)
		change     func(*fixture, *call)
	}{
		{name: "S1 bearer token and PoP JWT"},
		{name: "S1 bound token, DPoP proof beside the PoP JWT", kind: "dpop"},
		{name: "S2 combined mode", kind: "combined"},
		{name: "S5 no challenges", configure: resource(func(r *authserver.ResourceConfig) { r.Challenges = nil }),
			change: drop("challenge")},
		{name: "6750 scheme in other letters", change: func(f *fixture, c *call) {
			c.headers.Set("Authorization", strings.Replace(c.headers.Get("Authorization"), "Bearer", "bEARER", 1))
		}},
		{name: "6750 DPoP in other letters", kind: "dpop", change: func(f *fixture, c *call) {
			c.headers.Set("Authorization", strings.Replace(c.headers.Get("Authorization"), "DPoP", "dpop", 1))
		}},
		{name: "8707 below the resource, by another method", kind: "dpop", change: func(f *fixture, c *call) {
			c.method, c.url, c.body = http.MethodPut, resourceID+"/a/b?c=d", "x"
			f.aim(c)
		}},
		{name: "9449 a proof beside a bearer token", change: func(f *fixture, c *call) {
			f.withDPoP(c, f.dpop)
			f.aim(c)
		}},
		{name: "9728 bound token where they are required", kind: "dpop",
			configure: resource(func(r *authserver.ResourceConfig) { r.DPoPRequired = true })},
		{name: "req_hash of the body", change: func(f *fixture, c *call) {
			c.method, c.body = http.MethodPost, "on=1"
			c.pop.claims["req_hash"] = halfHash([]byte(c.body))
		}},
		{name: "S11 a jti that the authorization server has seen", change: func(f *fixture, c *call) {
			there := f.pop()
			f.grant(there)
			c.pop.claims["jti"] = there.pop.claims["jti"]
		}},
	}
	served := 0
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newResourceFixture(t, tc.configure)
			c := f.atResource(f.tokenCall(tc.kind))
			if tc.change != nil {
				tc.change(f, c)
			}
			f.wantServed(f.send(c), c.attestation.claims["sub"].(string))
			served++
		})
	}
	if served != 11 {
		t.Errorf("%d requests served, want 11", served)
	}
}

// TestResourceStateApart: on one origin, neither a challenge nor a nonce of the
// one is good at the other, and single use is each one's own affair.
func TestResourceStateApart(t *testing.T) {
	f := newResourceFixture(t, func(cfg *authserver.Config) {
		nonces(cfg)
		cfg.Resource.DPoPNonces, cfg.Resource.Challenges.SingleUse = true, true
	})
	nonceOf := func(audience string) string {
		return f.do(httptest.NewRequest(http.MethodPost, audience+"/challenge", nil)).Header().Get(nonceHeader)
	}
	asks := func() *call {
		c := f.tokenCall("dpop")
		c.dpop.claims["nonce"] = nonceOf(issuer)
		return c
	}
	c := asks()
	c.pop.claims["challenge"] = f.challengeOf(resourceID)
	f.wantRefusal(f.send(c), badRequest, useNew, "7.2(5)", "not a challenge of this server")
	c = asks()
	c.dpop.claims["nonce"] = nonceOf(resourceID)
	f.wantRefusal(f.send(c), badRequest, "use_dpop_nonce", "RFC 9449 4.3(10)", "nonce")

	c = f.atResource(asks())
	c.dpop.claims["nonce"] = nonceOf(issuer)
	f.wantUnauthorized(f.send(c), badClient, "use_dpop_nonce", "DPoP", "RFC 9449 4.3(10)", "nonce")
	c = f.atResource(asks())
	c.dpop.claims["nonce"] = nonceOf(resourceID)
	f.wantServed(f.send(c), clientID)
	spent := c.pop.claims["challenge"]
	c = f.atResource(asks())
	c.pop.claims["challenge"], c.dpop.claims["nonce"] = spent, nonceOf(resourceID)
	f.wantUnauthorized(f.send(c), badClient, useNew, "DPoP", "7.2(5)", "already used")
}

// TestResourceOffersS7: challenges on every response of the resource, also on
// one that has nothing to do with them.
func TestResourceOffersS7(t *testing.T) {
	f := newResourceFixture(t, resource(func(r *authserver.ResourceConfig) {
		r.Challenges, r.DPoPNonces = &authserver.ChallengeConfig{Responses: true}, true
	}))
	w := f.do(httptest.NewRequest(http.MethodGet, resourceID, nil))
	f.wantUnauthorized(w, badClient, "", both, "RFC 6750 3.1", "no access token")
	if w.Header().Get(challengeHeader) == "" || w.Header().Get(nonceHeader) == "" {
		t.Errorf("headers %v have no challenge or no nonce", w.Header())
	}
	if w := f.do(httptest.NewRequest(http.MethodPost, resourceID+"/challenge", nil)); w.Code != badClient {
		t.Errorf("without a challenge endpoint its path answers %d, as no part of the resource", w.Code)
	}
}

func TestResourceMetadataS14S15(t *testing.T) {
	algorithms := []any{"ES256", "ES384", "ES512", "EdDSA"}
	want := object{
		"resource":                                            resourceID,
		"authorization_servers":                               []any{issuer},
		"bearer_methods_supported":                            []any{"header"},
		"challenge_endpoint":                                  resourceID + "/challenge",
		"client_attestation_pop_methods_supported":            []any{"attestation_pop_jwt", "dpop_combined"},
		"client_attestation_signing_alg_values_supported":     algorithms,
		"client_attestation_pop_signing_alg_values_supported": algorithms,
		"dpop_signing_alg_values_supported":                   algorithms,
	}
	const place = issuer + "/.well-known/oauth-protected-resource"
	f := newResourceFixture(t, nil)
	w := f.do(httptest.NewRequest(http.MethodGet, place+"/resource", nil))
	if got := body(t, w); w.Code != http.StatusOK || !reflect.DeepEqual(got, want) {
		t.Errorf("metadata %v, want %v", got, want)
	}

	f = newResourceFixture(t, resource(func(r *authserver.ResourceConfig) {
		r.Methods, r.Challenges, r.DPoPRequired = []string{authserver.MethodDPoP}, nil, true
	}))
	delete(want, "challenge_endpoint")
	want["client_attestation_pop_methods_supported"] = []any{"dpop_combined"}
	want["dpop_bound_access_tokens_required"] = true
	if got := body(t, f.do(httptest.NewRequest(http.MethodGet, place+"/resource", nil))); !reflect.DeepEqual(got, want) {
		t.Errorf("metadata %v, want %v", got, want)
	}

	// RFC 9728, section 3.1: inserted before the path, without that of "/".
	for identifier, path := range map[string]string{
		"https://rs.example.com": "", "https://rs.example.com/": "", "https://rs.example.com/a/b/": "/a/b/",
	} {
		f = newResourceFixture(t, resource(func(r *authserver.ResourceConfig) { r.Identifier, r.Challenges = identifier, nil }))
		if got := body(t, f.do(httptest.NewRequest(http.MethodGet, place+path, nil))); got["resource"] != identifier {
			t.Errorf("%s: metadata %v", identifier, got)
		}
	}
	f = newResourceFixture(t, resource(func(r *authserver.ResourceConfig) { r.Identifier = "/resource" }))
	if f.server.Resource() != resourceID || newFixture(t, nil).server.Resource() != "" {
		t.Errorf("a path on the issuer's origin makes the resource %s", f.server.Resource())
	}
}

// TestTargets8707: whom an access token is for.
func TestTargets8707(t *testing.T) {
	audienceOf := func(answer object) string {
		parsed, err := jwt.ParseSigned(answer["access_token"].(string), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Audience string `json:"aud"`
		}
		if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
			t.Fatal(err)
		}
		return claims.Audience
	}
	askFor := func(f *fixture, resources ...string) *call {
		c := f.pop()
		c.form["resource"] = resources
		return c
	}
	f := newResourceFixture(t, nil)
	if got := audienceOf(f.grant(f.pop())); got != issuer {
		t.Errorf("aud %q without a resource", got)
	}
	f.wantRefusal(f.send(askFor(f, "https://rs.example.com")), badRequest, "invalid_target", "RFC 8707 2", "is not known")
	f.wantRefusal(f.send(askFor(f, resourceID+"/")), badRequest, "invalid_target", "RFC 8707 2", "is not known")
	f.wantRefusal(f.send(askFor(f, resourceID, resourceID)), badRequest, "invalid_target", "RFC 8707 2", "more than one")

	// A refresh keeps the resource, and gets no other.
	answer := f.grant(askFor(f, resourceID))
	if got := audienceOf(answer); got != resourceID {
		t.Errorf("aud %q, want the resource", got)
	}
	answer = f.grant(f.refreshCall(answer["refresh_token"]))
	if got := audienceOf(answer); got != resourceID {
		t.Errorf("refreshed: aud %q, want the resource", got)
	}
	c := f.refreshCall(answer["refresh_token"])
	c.form.Set("resource", issuer)
	f.wantRefusal(f.send(c), badRequest, "invalid_target", "RFC 8707 2.2", "was not granted")
	c = f.refreshCall(f.grant(f.pop())["refresh_token"])
	c.form.Set("resource", resourceID)
	f.wantRefusal(f.send(c), badRequest, "invalid_target", "RFC 8707 2.2", "was not granted")

	// Who has no resource does not know the parameter.
	f = newFixture(t, nil)
	if got := audienceOf(f.grant(askFor(f, "https://rs.example.com"))); got != issuer {
		t.Errorf("aud %q of a server without a resource", got)
	}
}

func TestNewRefusesResource(t *testing.T) {
	attester := newFixture(t, nil).attester
	for name, tc := range map[string]struct {
		change func(*authserver.ResourceConfig)
		want   string
	}{
		"no identifier":       {func(r *authserver.ResourceConfig) { r.Identifier = "" }, "absolute https URL"},
		"http":                {func(r *authserver.ResourceConfig) { r.Identifier = "http://rs.example.com" }, "https"},
		"a query":             {func(r *authserver.ResourceConfig) { r.Identifier += "?x" }, "query"},
		"the token endpoint":  {func(r *authserver.ResourceConfig) { r.Identifier = issuer + "/token" }, "/token"},
		"the same challenges": {func(r *authserver.ResourceConfig) { r.Identifier = issuer }, "/challenge"},
		"unknown method":      {func(r *authserver.ResourceConfig) { r.Methods = []string{"none"} }, "none"},
		"negative lifetime":   {func(r *authserver.ResourceConfig) { r.Challenges.Lifetime = -1 }, "negative"},
	} {
		cfg := authserver.Config{
			Issuer:       issuer,
			Clients:      []authserver.Client{{ID: clientID}},
			AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &attester.PublicKey, KeyID: "1"}}},
			Challenges:   &authserver.ChallengeConfig{Endpoint: true},
			Resource:     &authserver.ResourceConfig{Identifier: resourceID, Challenges: &authserver.ChallengeConfig{Endpoint: true}},
		}
		if _, err := authserver.New(cfg); err != nil {
			t.Fatalf("before the change: %v", err)
		}
		tc.change(cfg.Resource)
		if _, err := authserver.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "authserver: resource") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
}
