package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestResourceC49 is a resource with nothing special about it: metadata is asked
// for once, at the inserted place, and the PoP is for the resource identifier.
func TestResourceC49(t *testing.T) {
	for identifier, place := range map[string]string{
		"https://rs.example.com":             "https://rs.example.com/.well-known/oauth-protected-resource",
		"https://rs.example.com/":            "https://rs.example.com/.well-known/oauth-protected-resource",
		"https://rs.example.com/api":         "https://rs.example.com/.well-known/oauth-protected-resource/api",
		"https://rs.example.com/a/b%2Fc":     "https://rs.example.com/.well-known/oauth-protected-resource/a/b%2Fc",
		"https://rs.example.com:8443/api":    "https://rs.example.com:8443/.well-known/oauth-protected-resource/api",
		"http://localhost:8080/api":          "http://localhost:8080/.well-known/oauth-protected-resource/api",
		"https://rs.example.com/.well-known": "https://rs.example.com/.well-known/oauth-protected-resource/.well-known",
	} {
		t.Run(identifier, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, identifier)
			var first string
			rs := r.resources[0]
			rs.describe(nil)
			c := r.client(func(cfg *client.Config) {
				base := cfg.Base
				cfg.Base = roundTrip(func(req *http.Request) (*http.Response, error) {
					if first == "" {
						first = req.Method + " " + req.URL.String()
					}
					return base.RoundTrip(req)
				})
			})
			if strings.Contains(identifier, "/.well-known") {
				return // the double takes it all for metadata
			}
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

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestResourceWithoutMetadata: it is not a must. What has none is asked once.
func TestResourceWithoutMetadata(t *testing.T) {
	for _, status := range []int{301, 400, 401, 403, 404, 405, 410} {
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

// TestResourceMetadataRefusedC49: metadata that is not the resource's own, or
// cannot be used, ends the request before anything is signed.
func TestResourceMetadataRefusedC49(t *testing.T) {
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
		"HTML":           "<!doctype html>",
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
			cfg.Resources = resources
			if _, err := client.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "resource") {
				t.Errorf("error %v", err)
			}
			if n := r.store.creates.Load(); n != 0 {
				t.Errorf("%d keys made", n)
			}
		})
	}
}

// TestResourceOnOneOrigin: resource and authorization server share an origin and
// nothing else: neither challenge nor nonce nor audience. Over sockets.
func TestResourceOnOneOrigin(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{Nonces: true, Offer: transporttest.OfferAlways}, "/api", "/api/inner")
	outer, inner := r.resources[0], r.resources[1]
	for i, rs := range r.resources {
		rs.challenge, rs.nonce = fmt.Sprint("challenge-", i), fmt.Sprint("nonce-", i)
		rs.describe(map[string]any{"authorization_servers": []string{r.Issuer}, "challenge_endpoint": rs.challengeEndpoint()})
	}
	server := httptest.NewServer(r)
	defer server.Close()
	base := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}}
	defer base.CloseIdleConnections()
	c := r.client(func(cfg *client.Config) { cfg.Base, cfg.DPoP = base, client.DPoPInstanceKey })

	for round := range 3 {
		token, err := c.Token(t.Context(), fmt.Sprint("scope-", round))
		if err != nil {
			t.Fatal(err)
		}
		if token.TokenType != "DPoP" {
			t.Errorf("token_type %s", token.TokenType)
		}
		r.call(c, outer.identifier+"/x", "DPoP", http.StatusOK)
		r.call(c, inner.identifier+"/x", "DPoP", http.StatusOK)
	}
	for _, rs := range r.resources {
		rs.counts(3, 1, 1)
		for _, got := range rs.got() {
			if got.PoP.Challenge != rs.challenge || got.DPoP.Nonce != rs.nonce {
				t.Errorf("challenge %q, nonce %q", got.PoP.Challenge, got.DPoP.Nonce)
			}
		}
	}
	if tokens, challenges, refused := r.Count(transporttest.Token), r.Count(transporttest.Challenge), r.Refused(); tokens != 3 || challenges != 1 || refused != 0 {
		t.Errorf("%d token and %d challenge requests, %d refused", tokens, challenges, refused)
	}
	for _, got := range r.Requests(transporttest.Token) {
		if got.PoP.Audience != r.Issuer || strings.HasPrefix(got.PoP.Challenge, "challenge-") {
			t.Errorf("aud %s, challenge %s", got.PoP.Audience, got.PoP.Challenge)
		}
	}
}

// TestTokenForResources is RFC 8707.
func TestTokenForResources(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api", "https://other.example.com")
	if _, err := r.client().Token(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	form, err := url.ParseQuery(string(r.Requests(transporttest.Token)[0].Body))
	slices.Sort(form["resource"])
	if err != nil || !slices.Equal(form["resource"], []string{"https://other.example.com", "https://rs.example.com/api"}) || form.Get("scope") != "a" {
		t.Errorf("form %v, %v", form, err)
	}
	for _, rs := range r.resources {
		rs.counts(0, 0, 0) // their metadata is for when they are called
	}

	bare := newRig(t, transporttest.Policy{})
	if _, err := bare.client(t).Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if body := string(bare.Requests(transporttest.Token)[0].Body); strings.Contains(body, "resource") {
		t.Errorf("form %s", body)
	}
}

// TestTokenEndpointBelowResource: it stays the authorization server's, and the
// longest identifier wins among resources.
func TestTokenEndpointBelowResource(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "/")
	rs := r.resources[0]
	c := r.client()
	resp, err := c.HTTPClient().PostForm(r.Endpoint(transporttest.Token), url.Values{"grant_type": {"client_credentials"}, "client_id": {r.ClientID}})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if got := r.Requests(transporttest.Token); len(got) != 1 || got[0].PoP.Audience != r.Issuer {
		t.Errorf("%d token requests, %+v", len(got), got)
	}
	rs.counts(0, 0, 0)
	r.call(c, r.URL+"/elsewhere", "Bearer", http.StatusOK)
	rs.counts(1, 1, 0)
}

// TestResourceRedirectRefused: neither from a resource nor to one.
func TestResourceRedirectRefused(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
	site := newSite()
	visits := func() int { return len(site.visits()) }
	c := r.client(func(cfg *client.Config) { cfg.Base = inProcess{site} })
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{"https://elsewhere.example.com/", "https://rs.example.com/api/y", "https://rs.example.com/outside"} {
			site.set("https://rs.example.com/api/x", redirect(code, to))
			before := visits()
			if _, err := r.try(c, "https://rs.example.com/api/x", "Bearer"); !errors.Is(err, transport.ErrRedirect) {
				t.Errorf("%d to %s: error %v", code, to, err)
			}
			if n := visits() - before; n > 2 || before > 0 && n > 1 { // the first asks for metadata as well
				t.Errorf("%d requests", n)
			}
		}
		site.set("https://elsewhere.example.com/in", redirect(code, "https://rs.example.com/api/x"))
		before := visits()
		if _, err := r.try(c, "https://elsewhere.example.com/in", "Bearer"); !errors.Is(err, transport.ErrRedirect) || visits() != before+1 {
			t.Errorf("%d into the resource: error %v, %d requests", code, err, visits()-before)
		}
	}
}

