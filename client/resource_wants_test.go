// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const methodsSupported = "client_attestation_pop_methods_supported"

// ordinary is the metadata of APIs that ask for no attestation.
var ordinary = map[string]map[string]any{
	"none":                         nil,
	"plain":                        {"bearer_methods_supported": []string{"header"}},
	"bound tokens":                 {"dpop_bound_access_tokens_required": true, "dpop_signing_alg_values_supported": []string{"ES256"}},
	"no methods":                   {methodsSupported: []string{}},
	"method none":                  {methodsSupported: []string{"none"}},
	"a method that nobody knows":   {methodsSupported: []string{"x"}},
	"a challenge endpoint":         {"challenge_endpoint": "https://rs.example.com/api/challenge"},
	"algorithms that do not apply": {"client_attestation_pop_signing_alg_values_supported": []string{"ES512"}},
}

// TestOrdinaryResource (A1): an API that asks for no attestation gets none, and with a
// DPoP key of its own the Client makes no signature with the instance's.
func TestOrdinaryResource(t *testing.T) {
	for name, members := range ordinary {
		for _, method := range []transport.Method{"", transport.MethodPoP} {
			t.Run(fmt.Sprint(name, " ", method), func(t *testing.T) {
				r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
				r.attestation = client.AttestListed
				rs := r.resources[0]
				rs.plain, rs.nonce = true, "n"
				if members != nil {
					rs.describe(members)
				}
				c := r.client(ownKey, func(cfg *client.Config) { cfg.Method = method })
				own, err := c.DPoPThumbprint(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				const calls = 5
				for range calls {
					r.call(c, rs.identifier+"/x", "DPoP", http.StatusOK)
				}
				// One more for the nonce: it comes from the challenge endpoint, if there is one.
				given := map[bool]int{true: 1}[members["challenge_endpoint"] != nil]
				rs.counts(calls+1-given, 1, given)
				for _, got := range rs.got() {
					if got.DPoPKey != own {
						t.Errorf("DPoP proof by %s, want %s", got.DPoPKey, own)
					}
				}
				if n, asked := r.key.signed.Load(), len(r.attester.calls()); n != 0 || asked != 0 {
					t.Errorf("%d signatures of the instance's key, the attester was asked %d times, want none", n, asked)
				}
			})
		}
		t.Run(name+", bearer", func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			r.attestation = client.AttestListed
			rs := r.resources[0]
			rs.plain = true
			if members != nil && name != "bound tokens" {
				rs.describe(members)
			}
			c := r.client()
			r.call(c, rs.identifier, "Bearer", http.StatusOK)
			if n := r.key.signed.Load(); n != 0 {
				t.Errorf("%d signatures", n)
			}
		})
	}
}

// TestResourceNeverAttested: nothing that a resource says gets it an attestation, and
// nothing is asked of it.
func TestResourceNeverAttested(t *testing.T) {
	for name, members := range map[string]map[string]any{
		"asks for it":       {methodsSupported: []string{"attestation_pop_jwt"}},
		"asks for combined": {methodsSupported: []string{"dpop_combined"}},
		"is another's":      {"resource": "https://other.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			r.attestation = client.AttestNever
			rs := r.resources[0]
			rs.plain, rs.place = true, "https://rs.example.com/meta"
			rs.describe(members)
			rs.wrap = func(string) []string { return []string{`DPoP resource_metadata="https://rs.example.com/meta"`} }
			c := r.client(ownKey)
			r.call(c, rs.identifier, "DPoP", http.StatusOK)
			rs.set(func(s *resourceServer) { s.nonce = "n" }) // a refusal that names the metadata
			r.call(c, rs.identifier, "DPoP", http.StatusUnauthorized)
			r.call(c, rs.identifier, "Bearer", http.StatusOK)
			rs.counts(3, 0, 0)
			if n, asked := r.key.signed.Load(), len(r.attester.calls()); n != 0 || asked != 0 {
				t.Errorf("%d signatures of the instance's key, the attester was asked %d times", n, asked)
			}
		})
	}
}

// TestResourceAlwaysAttested: with and without metadata that asks for it.
func TestResourceAlwaysAttested(t *testing.T) {
	for name, members := range map[string]map[string]any{
		"no metadata": nil,
		"plain":       {},
		"none":        {methodsSupported: []string{"none"}},
		"others":      {methodsSupported: []string{"x"}},
		"listed":      {methodsSupported: []string{"attestation_pop_jwt"}},
	} {
		for _, method := range []transport.Method{"", transport.MethodDPoP} {
			t.Run(fmt.Sprint(name, " ", method), func(t *testing.T) {
				if name == "listed" && method != "" {
					t.Skip("is a mismatch, see TestResourceMethodMismatch")
				}
				r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
				rs := r.resources[0]
				rs.combined = method == transport.MethodDPoP
				if members != nil {
					rs.describe(members)
				}
				c := r.client(func(cfg *client.Config) { cfg.Method = method })
				r.call(c, rs.identifier, "Bearer", http.StatusOK)
				rs.counts(1, 1, 0)
				if thumbprint, _ := keystore.Thumbprint(r.key.Public()); rs.combined && rs.got()[0].DPoPKey != thumbprint {
					t.Error("DPoP proof by another key")
				}
			})
		}
	}
}

// TestResourceAsksInVain: a refusal that asks for an attestation is explained.
func TestResourceAsksInVain(t *testing.T) {
	for code, want := range map[string]int{
		"use_attestation_challenge": 1, "use_fresh_attestation": 1, "invalid_client_attestation": 1,
		"invalid_token": 0, "": 0,
	} {
		r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
		r.attestation = client.AttestListed
		var log bytes.Buffer
		site := newSite()
		site.set("https://rs.example.com/api", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="`+code+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		c := r.client(func(cfg *client.Config) {
			cfg.Base, cfg.Logger = inProcess{site}, slog.New(slog.NewTextHandler(&log, nil))
		})
		r.call(c, "https://rs.example.com/api", "Bearer", http.StatusUnauthorized)
		if n := strings.Count(log.String(), "AttestAlways"); n != want {
			t.Errorf("%q: %d warnings, want %d: %s", code, n, want, &log)
		}
	}
}

// TestOmitParameter: a server need not know a resource by its name.
func TestOmitParameter(t *testing.T) {
	const api, other, userinfo = "https://rs.example.com/api", "https://other.example.com", "https://as.example.com/me"
	for name, test := range map[string]struct {
		resources []client.Resource
		userinfo  string // of the server
		want      map[string][]string
	}{
		"one of two":     {[]client.Resource{{Identifier: api, OmitParameter: true}, {Identifier: other}}, "", map[string][]string{"": {other}, api: nil, other: {other}}},
		"all":            {[]client.Resource{{Identifier: api, OmitParameter: true}}, "", map[string][]string{"": nil, api: nil}},
		"userinfo":       {[]client.Resource{{Identifier: userinfo}, {Identifier: api}}, userinfo, map[string][]string{"": {api}, userinfo: nil, api: {api}}},
		"userinfo alone": {[]client.Resource{{Identifier: userinfo}}, userinfo + "/", map[string][]string{"": nil, userinfo: nil}},
		"no userinfo":    {[]client.Resource{{Identifier: userinfo}}, "", map[string][]string{"": {userinfo}, userinfo: {userinfo}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			c := r.client(t, func(cfg *client.Config) {
				cfg.Resources = test.resources
				cfg.Metadata = &client.Metadata{Issuer: r.Issuer, TokenEndpoint: r.Endpoint(transporttest.Token), ChallengeEndpoint: r.Endpoint(transporttest.Challenge), UserinfoEndpoint: test.userinfo}
			})
			for resource, want := range test.want {
				before := r.Count(transporttest.Token)
				var err error
				if resource == "" {
					if parameters, err := c.ResourceParameters(t.Context()); err != nil || !slices.Equal(parameters, want) {
						t.Errorf("ResourceParameters: %q, %v, want %q", parameters, err, want)
					}
					_, err = c.Token(t.Context(), "a")
				} else {
					_, err = c.TokenFor(t.Context(), resource, "a")
				}
				if err != nil {
					t.Fatal(err)
				}
				form, err := url.ParseQuery(string(r.Requests(transporttest.Token)[before].Body))
				if err != nil || !slices.Equal(form["resource"], want) {
					t.Errorf("%q: resource %q, want %q (%v)", resource, form["resource"], want, err)
				}
			}
		})
	}
}

func TestNewRefusesUnknownAttestation(t *testing.T) {
	for _, setting := range []client.ResourceAttestation{-1, 3} {
		r := newRig(t, transporttest.Policy{})
		cfg := r.config()
		cfg.Resources = []client.Resource{{Identifier: "https://rs.example.com", Attestation: setting}}
		if _, err := client.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "Attestation") || r.store.creates.Load() != 0 {
			t.Errorf("%d: error %v, %d keys made", setting, err, r.store.creates.Load())
		}
	}
}
