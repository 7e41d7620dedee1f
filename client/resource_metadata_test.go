// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestResourceC49 is a resource with nothing special about it: metadata is asked
// for once, at the inserted place, and the PoP is for the resource identifier.
func TestResourceC49(t *testing.T) {
	for identifier, place := range map[string]string{
		"https://rs.example.com":          "https://rs.example.com/.well-known/oauth-protected-resource",
		"https://rs.example.com/":         "https://rs.example.com/.well-known/oauth-protected-resource",
		"https://rs.example.com/api":      "https://rs.example.com/.well-known/oauth-protected-resource/api",
		"https://rs.example.com/a/b%2Fc":  "https://rs.example.com/.well-known/oauth-protected-resource/a/b%2Fc",
		"https://rs.example.com:8443/api": "https://rs.example.com:8443/.well-known/oauth-protected-resource/api",
		"http://localhost:8080/api":       "http://localhost:8080/.well-known/oauth-protected-resource/api",
	} {
		t.Run(identifier, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, identifier)
			var first string
			rs := r.resources[0]
			rs.describe(nil)
			c := r.client(func(cfg *client.Config) {
				base := cfg.Base
				cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if first == "" {
						first = req.Method + " " + req.URL.String()
					}
					return base.RoundTrip(req)
				})
			})
			r.call(c, identifier, "Bearer", http.StatusOK)
			r.call(c, strings.TrimSuffix(identifier, "/")+"/below?x=y", "Bearer", http.StatusOK)
			if first != "GET "+place {
				t.Errorf("first request %s, want GET %s", first, place)
			}
			rs.counts(2, 1, 0)
			if n := r.total(); n != 0 {
				t.Errorf("%d requests to the authorization server", n)
			}
			for _, got := range rs.got() {
				if got.PoP.Claims["aud"] != identifier || got.Header.Get("Authorization") != "Bearer the-access-token" {
					t.Errorf("aud %v", got.PoP.Claims["aud"])
				}
			}
		})
	}
}

// TestResourceWithoutMetadata: it is not a must. What has none is asked once.
func TestResourceWithoutMetadata(t *testing.T) {
	for name, page := range map[string]string{"HTML": "<!doctype html>", "empty": "", "another kind": `{"error":"not_found"}`, "cut": `{"resource":"https`} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			rs := r.resources[0]
			c := r.client(func(cfg *client.Config) {
				base := cfg.Base
				cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodGet && req.URL.String() == wellKnownOf(rs.identifier) {
						site := newSite()
						site.set(req.URL.String(), text(page))
						return inProcess{site}.RoundTrip(req)
					}
					return base.RoundTrip(req)
				})
			})
			for range 3 {
				r.call(c, rs.identifier, "Bearer", http.StatusOK)
			}
		})
	}
	for _, status := range []int{201, 204, 301, 302, 307, 400, 401, 403, 404, 405, 410, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			r.resources[0].absent = status
			c := r.client()
			for range 3 {
				r.call(c, "https://rs.example.com/api", "Bearer", http.StatusOK)
			}
			r.resources[0].counts(3, 1, 0)
		})
	}
}

// TestResourceMetadataOutOfOrder: a resource that cannot say now whether it has
// metadata is not taken for one that has none.
func TestResourceMetadataOutOfOrder(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			rs := r.resources[0]
			rs.absent = status
			c := r.client()
			if _, err := r.try(c, rs.identifier, "Bearer"); !errors.Is(err, client.ErrMetadata) {
				t.Errorf("error %v", err)
			}
			rs.counts(0, 1, 0)
			if n := r.key.signed.Load(); n != 0 {
				t.Errorf("%d signatures", n)
			}
			rs.set(func(s *resourceServer) { s.absent = 0 })
			r.call(c, rs.identifier, "Bearer", http.StatusOK)
			rs.counts(1, 2, 0)
		})
	}
}

// TestResourceMetadataMustFitC49: metadata that is not the resource's own, or
// cannot be used, ends the request before anything is signed.
func TestResourceMetadataMustFitC49(t *testing.T) {
	const identifier = "https://rs.example.com/api"
	for name, members := range map[string]map[string]any{
		"with a slash":               {"resource": identifier + "/"},
		"without its path":           {"resource": "https://rs.example.com"},
		"with its port":              {"resource": "https://rs.example.com:443/api"},
		"host in another case":       {"resource": "https://RS.example.com/api"},
		"none":                       {"resource": ""},
		"number":                     {"resource": 7},
		"challenge endpoint http":    {"challenge_endpoint": "http://rs.example.com/api/challenge"},
		"challenge on loopback":      {"challenge_endpoint": "http://127.0.0.1/challenge"},
		"challenge endpoint a word":  {"challenge_endpoint": "challenge"},
		"challenge with user":        {"challenge_endpoint": "https://user@rs.example.com/challenge"},
		"DPoP-bound tokens only":     {"dpop_bound_access_tokens_required": true},
		"methods a word":             {"client_attestation_pop_methods_supported": "none"},
		"other algorithms for PoPs":  {"client_attestation_pop_signing_alg_values_supported": []string{"ES512"}},
		"combined, other algorithms": {"client_attestation_pop_methods_supported": []string{"dpop_combined"}, "dpop_signing_alg_values_supported": []string{"RS256"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, identifier)
			r.resources[0].describe(members)
			c := r.client()
			for range 2 {
				if _, err := r.try(c, identifier, "Bearer"); !errors.Is(err, client.ErrMetadata) {
					t.Errorf("error %v", err)
				}
			}
			r.resources[0].counts(0, 2, 0)
			if n, calls := r.key.signed.Load(), len(r.attester.calls()); n != 0 || calls != 0 {
				t.Errorf("%d signatures, the attester was asked %d times", n, calls)
			}
		})
	}
	for name, document := range map[string]string{
		"resource twice": `{"resource":"https://other.example.com","resource":"` + identifier + `"}`,
		"2 MiB":          `{"resource":"` + identifier + `","x":"` + strings.Repeat("x", 2<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, identifier)
			c := r.client(func(cfg *client.Config) {
				site := newSite()
				site.set(wellKnownOf(identifier), text(document))
				cfg.Base = inProcess{site}
			})
			if _, err := r.try(c, identifier, "Bearer"); !errors.Is(err, client.ErrMetadata) || len(err.Error()) > 1000 {
				t.Errorf("error %.1000v", err)
			}
		})
	}
	// An identifier's scheme may be written in capitals.
	t.Run("HTTPS", func(t *testing.T) {
		r := newResourceRig(t, transporttest.Policy{}, "HTTPS://rs.example.com/api")
		c := r.client(func(cfg *client.Config) {
			site := newSite()
			site.set(wellKnownOf(identifier), text(`{"resource":"HTTPS://rs.example.com/api","challenge_endpoint":"http://127.0.0.1/challenge"}`))
			cfg.Base = inProcess{site}
		})
		if _, err := r.try(c, identifier, "Bearer"); !errors.Is(err, client.ErrMetadata) {
			t.Errorf("error %v", err)
		}
	})
}

func TestResourceIdentifiersRefused(t *testing.T) {
	for name, resources := range map[string][]string{
		"http":         {"http://rs.example.com"},
		"relative":     {"/api"},
		"fragment":     {"https://rs.example.com/#x"},
		"query":        {"https://rs.example.com/?x"},
		"user":         {"https://user@rs.example.com/"},
		"twice":        {"https://rs.example.com/a", "https://rs.example.com/a"},
		"the same one": {"https://rs.example.com", "https://rs.example.com/"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			for _, identifier := range resources {
				cfg.Resources = append(cfg.Resources, client.Resource{Identifier: identifier})
			}
			if _, err := client.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "resource") {
				t.Errorf("error %v", err)
			}
			if n := r.store.creates.Load(); n != 0 {
				t.Errorf("%d keys made", n)
			}
		})
	}
}
