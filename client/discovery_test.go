// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
)

// A discoverer is a Client whose network is a site, with what it may not use
// before it has found good metadata.
type discoverer struct {
	*client.Client
	site     *site
	store    *countingStore
	attester *testAttester
	clock    *testClock
}

func newDiscoverer(t testing.TB, issuer string, edits ...func(*client.Config)) *discoverer {
	t.Helper()
	d := &discoverer{site: newSite(), store: &countingStore{Store: softkey.New()}, clock: newTestClock()}
	d.attester = &testAttester{attest: selfAttest(t)}
	cfg := client.Config{
		Issuer:   issuer,
		ClientID: "client",
		Store:    d.store,
		Attester: d.attester,
		Base:     inProcess{d.site},
		Clock:    d.clock.now,
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	d.Client = c
	return d
}

// document is metadata for an issuer; edits change members or, with nil, remove
// them.
func document(issuer string, edits map[string]any) string {
	m := map[string]any{"issuer": issuer, "token_endpoint": "https://as.example.com/token"}
	maps.Copy(m, edits)
	maps.DeleteFunc(m, func(_ string, value any) bool { return value == nil })
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const inserted = "/.well-known/oauth-authorization-server"

func TestDiscoveryPlacesC48(t *testing.T) {
	for issuer, places := range map[string][2]string{
		"https://as.example.com":               {"https://as.example.com" + inserted, "https://as.example.com/.well-known/openid-configuration"},
		"https://as.example.com/":              {"https://as.example.com" + inserted, "https://as.example.com/.well-known/openid-configuration"},
		"https://as.example.com/tenant":        {"https://as.example.com" + inserted + "/tenant", "https://as.example.com/tenant/.well-known/openid-configuration"},
		"https://as.example.com/tenant/":       {"https://as.example.com" + inserted + "/tenant", "https://as.example.com/tenant/.well-known/openid-configuration"},
		"https://as.example.com/a/b":           {"https://as.example.com" + inserted + "/a/b", "https://as.example.com/a/b/.well-known/openid-configuration"},
		"https://as.example.com/a%2Fb":         {"https://as.example.com" + inserted + "/a%2Fb", "https://as.example.com/a%2Fb/.well-known/openid-configuration"},
		"https://as.example.com:8443/tenant":   {"https://as.example.com:8443" + inserted + "/tenant", "https://as.example.com:8443/tenant/.well-known/openid-configuration"},
		"http://localhost:8080/tenant":         {"http://localhost:8080" + inserted + "/tenant", "http://localhost:8080/tenant/.well-known/openid-configuration"},
		"http://[::1]:8080":                    {"http://[::1]:8080" + inserted, "http://[::1]:8080/.well-known/openid-configuration"},
		"https://as.example.com/.well-known/x": {"https://as.example.com" + inserted + "/.well-known/x", "https://as.example.com/.well-known/x/.well-known/openid-configuration"},
	} {
		for place, wants := range map[string][]string{
			places[0]: {"GET " + places[0]},
			places[1]: {"GET " + places[0], "GET " + places[1]},
		} {
			t.Run(issuer+" at "+place, func(t *testing.T) {
				d := newDiscoverer(t, issuer)
				d.site.set(place, text(document(issuer, nil)))
				endpoint, err := d.Endpoint(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if endpoint.TokenURL != "https://as.example.com/token" {
					t.Errorf("token endpoint %q", endpoint.TokenURL)
				}
				if visits := d.site.visits(); !slices.Equal(visits, wants) {
					t.Errorf("requests %q, want %q", visits, wants)
				}
			})
		}
	}
}

// TestDiscoveryFallsBack: from every answer that is not metadata, right or wrong, and
// does not ask to come again later. A proxy's answer is not the server's.
func TestDiscoveryFallsBack(t *testing.T) {
	const issuer = "https://as.example.com/tenant"
	first, second := "https://as.example.com"+inserted+"/tenant", issuer+"/.well-known/openid-configuration"
	pages := map[string]http.HandlerFunc{
		"empty":        text(""),
		"not JSON":     text("<html>"),
		"cut":          text(document(issuer, nil)[:40]),
		"another kind": text(`{"error":"not_found"}`),
		"other issuer": text(document("https://other.example.com", nil)),
		"redirect 302": redirect(302, second),
		"redirect 307": redirect(307, second),
		"redirect 308": redirect(308, second),
		"redirect 301": redirect(301, second),
	}
	for _, code := range []int{201, 204, 304, 400, 401, 403, 404, 405, 406, 408, 410, 421, 425, 429, 500, 501, 502, 503, 504, 511} {
		pages[http.StatusText(code)] = status(code)
	}
	final := []string{"other issuer"}
	for _, code := range []int{408, 425, 429, 500, 503} {
		final = append(final, http.StatusText(code))
	}
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			d := newDiscoverer(t, issuer)
			d.site.set(first, page)
			d.site.set(second, text(document(issuer, nil)))
			_, err := d.Endpoint(t.Context())
			wants := []string{"GET " + first}
			if !slices.Contains(final, name) {
				wants = append(wants, "GET "+second)
			}
			if (err == nil) != (len(wants) == 2) || err != nil && !errors.Is(err, client.ErrMetadata) {
				t.Errorf("error %v, want ErrMetadata or none", err)
			}
			if visits := d.site.visits(); !slices.Equal(visits, wants) {
				t.Errorf("requests %q, want %q", visits, wants)
			}
		})
	}
	t.Run("found nowhere", func(t *testing.T) {
		d := newDiscoverer(t, issuer)
		_, err := d.Endpoint(t.Context())
		if !errors.Is(err, client.ErrMetadata) || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), second) {
			t.Errorf("error %v, want ErrMetadata that names both places", err)
		}
		if n := len(d.site.visits()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

func TestDiscoveryRefusesC48(t *testing.T) {
	const good = "https://as.example.com/Tenant"
	type edit = map[string]any
	// No metadata at all, so that it may be at the other place.
	none := []string{"issuer missing", "issuer under Issuer", "empty", "null", "list", "string", "HTML", "cut", "text after the object"}
	tests := map[string]struct{ issuer, document string }{
		"issuer with slash":      {good, document(good+"/", nil)},
		"issuer in another case": {good, document("https://as.example.com/tenant", nil)},
		"host in another case":   {good, document("https://AS.example.com/Tenant", nil)},
		"issuer with port":       {good, document("https://as.example.com:443/Tenant", nil)},
		"issuer is a prefix":     {good, document("https://as.example.com", nil)},
		"issuer missing":         {good, document(good, edit{"issuer": nil})},
		"issuer null":            {good, strings.Replace(document(good, nil), `"`+good+`"`, "null", 1)},
		"issuer number":          {good, document(good, edit{"issuer": 7})},
		"issuer list":            {good, document(good, edit{"issuer": []string{good}})},
		"issuer under Issuer":    {good, document(good, edit{"issuer": nil, "Issuer": good})},
		"issuer twice":           {good, `{"issuer":"https://other.example.com",` + document(good, nil)[1:]},
		"endpoint twice":         {good, `{"token_endpoint":"https://other.example.com/",` + document(good, nil)[1:]},
		"no token endpoint":      {good, document(good, edit{"token_endpoint": nil})},
		"token endpoint number":  {good, document(good, edit{"token_endpoint": 7})},
		"methods is a string":    {good, document(good, edit{"token_endpoint_auth_methods_supported": "attest_jwt_client_auth"})},
		"methods of numbers":     {good, document(good, edit{"token_endpoint_auth_methods_supported": []int{1}})},
		"empty":                  {good, ""},
		"null":                   {good, "null"},
		"list":                   {good, "[" + document(good, nil) + "]"},
		"string":                 {good, `"` + good + `"`},
		"HTML":                   {good, "<!doctype html><title>Hotspot login</title>"},
		"cut":                    {good, document(good, nil)[:40]},
		"text after the object":  {good, document(good, nil) + "}"},
		"2 MiB":                  {good, document(good, edit{"x": strings.Repeat("x", 2<<20)})},
		"2 MiB of space":         {good, document(good, nil) + strings.Repeat(" ", 2<<20)},
		"HTTPS issuer, http endpoint": {"HTTPS://as.example.com",
			document("HTTPS://as.example.com", edit{"token_endpoint": "http://localhost/token"})},
	}
	for _, name := range []string{
		"token_endpoint", "authorization_endpoint", "pushed_authorization_request_endpoint", "device_authorization_endpoint",
		"backchannel_authentication_endpoint", "introspection_endpoint", "revocation_endpoint", "challenge_endpoint",
	} {
		for value, what := range map[string]string{
			"http://as.example.com/x":       "http",
			"http://localhost/x":            "http on a loopback host",
			"https://user@as.example.com/x": "with user",
			"https://u:p@as.example.com/x":  "with password",
			"https://as.example.com/x#y":    "with fragment",
			"/token":                        "relative",
			"as.example.com/token":          "without scheme",
			"https://":                      "without host",
			"javascript:alert(1)":           "a script",
			"https://as.example.com/\x01":   "with control character",
			"https://as.example.com:x/":     "with a word for a port",
			" https://as.example.com/":      "with space",
		} {
			tests[name+" "+what] = struct{ issuer, document string }{good, document(good, edit{name: value})}
		}
	}
	if len(tests) != 26+8*12 {
		t.Fatalf("%d tests, want %d", len(tests), 26+8*12)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDiscoverer(t, test.issuer)
			path := strings.TrimPrefix(test.issuer[len("https://"):], "as.example.com")
			d.site.set("https://as.example.com"+inserted+path, text(test.document))
			_, err := d.Token(t.Context())
			if !errors.Is(err, client.ErrMetadata) {
				t.Errorf("error %v, want ErrMetadata", err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
			wants := 1
			if slices.Contains(none, name) {
				wants = 2
			}
			if visits := d.site.visits(); len(visits) != wants {
				t.Errorf("requests %q, want %d", visits, wants)
			}
			if n := d.store.signed.Load(); n != 0 {
				t.Errorf("%d signatures made, want 0", n)
			}
			if n := len(d.attester.calls()); n != 0 {
				t.Errorf("attester asked %d times, want 0", n)
			}
		})
	}
}

func TestDiscoveryAllowsC48(t *testing.T) {
	const issuer = "https://as.example.com"
	for name, edits := range map[string]map[string]any{
		"another origin":       {"token_endpoint": "https://mtls.example.net:8443/token"},
		"endpoint with query":  {"token_endpoint": "https://as.example.com/token?tenant=1"},
		"unknown members":      {"x": map[string]any{"issuer": "y"}, "jwks_uri": 7},
		"other flows' methods": {"revocation_endpoint_auth_methods_supported": []string{"none"}},
		"empty lists":          {"token_endpoint_auth_methods_supported": []string{}, "client_attestation_pop_methods_supported": []string{}},
		"just under 1 MiB":     {"x": strings.Repeat("x", 1<<20-1000)},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiscoverer(t, issuer)
			d.site.set(issuer+inserted, text(document(issuer, edits)))
			endpoint, err := d.Endpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want, ok := edits["token_endpoint"]; ok && endpoint.TokenURL != want {
				t.Errorf("token endpoint %q, want %q", endpoint.TokenURL, want)
			}
		})
	}
}
