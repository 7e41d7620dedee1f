// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestOnlyConfiguredRequestsAreAuthenticated: contract line 10.
func TestOnlyConfiguredRequestsAreAuthenticated(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	token := f.server.Endpoint(transporttest.Token)
	tests := []struct {
		name   string
		url    string
		change func(*http.Request)
		signed bool
	}{
		{name: "endpoint", url: token, signed: true},
		{name: "endpoint with a query", url: token + "?tenant=1", signed: true},
		{name: "default port spelt another way", url: strings.Replace(token, "http://", "HTTP://", 1), signed: true},
		{name: "longer path", url: token + "/x"},
		{name: "path with a slash at the end", url: token + "/"},
		{name: "path with a dot segment", url: strings.TrimSuffix(token, "/token") + "/./token"},
		{name: "path escaped another way", url: strings.TrimSuffix(token, "token") + "%74oken"},
		{name: "other path", url: f.server.URL + "/elsewhere"},
		{name: "challenge endpoint", url: f.server.Endpoint(transporttest.Challenge)},
		{name: "metadata", url: f.server.Endpoint(transporttest.Metadata)},
		{name: "other host", url: onHost(t, token, "localhost:80")},
		{name: "other port", url: onHost(t, token, "127.0.0.1:1")},
		{name: "no port", url: onHost(t, token, "127.0.0.1")},
		{name: "other scheme", url: strings.Replace(token, "http:", "https:", 1)},
		{name: "GET", url: token, change: func(r *http.Request) { r.Method = http.MethodGet }},
		{name: "empty method is GET", url: token, change: func(r *http.Request) { r.Method = "" }},
		{name: "lower-case method", url: token, change: func(r *http.Request) { r.Method = "post" }},
		{name: "other virtual host", url: token, change: func(r *http.Request) { r.Host = "other.example" }},
		{name: "request line of its own", url: token, change: func(r *http.Request) { r.URL.Opaque = "/elsewhere" }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got *http.Request
			rt := f.another(func(c *transport.Config) {
				inner := &base{handler: f.server}
				c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.URL.String() == f.server.Endpoint(transporttest.Challenge) && test.signed {
						return inner.RoundTrip(r)
					}
					got = r
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
				})
			})
			req := newRequest(t, t.Context(), test.url)
			if test.change != nil {
				test.change(req)
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if n := len(got.Header.Values(transport.HeaderAttestation)) + len(got.Header.Values(transport.HeaderAttestationPoP)); (n == 2) != test.signed || n != 0 && n != 2 {
				t.Errorf("sent with %d credentials, want them: %v", n, test.signed)
			}
			if !test.signed && got != req {
				t.Error("a request that passes through is not the caller's own any more")
			}
		})
	}
}

// TestHostIsNotFoldedBeyondASCII: U+0130 in lower case is i, but names another
// host in IDNA.
func TestHostIsNotFoldedBeyondASCII(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	var got *http.Request
	rt := f.another(func(c *transport.Config) {
		c.Servers = []transport.Server{{Issuer: "https://issuer.example", Endpoints: []string{"https://issuer.example/token"}}}
		c.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})
	})
	for host, signed := range map[string]bool{"issuer.example": true, "ISSUER.example": true, "issuer.example:443": true, "İssuer.example": false, "ıssuer.example": false, "iſſuer.example": false} {
		req := newRequest(t, t.Context(), "https://"+host+"/token")
		if _, err := rt.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if has := got.Header.Get(transport.HeaderAttestation) != ""; has != signed {
			t.Errorf("https://%s/token sent with credentials: %v, want %v", host, has, signed)
		}
	}
}

// TestCallersCredentialHeadersAreRemoved: contract line 10; net/http would send
// them in whatever case they are.
func TestCallersCredentialHeadersAreRemoved(t *testing.T) {
	names := []string{"OAuth-Client-Attestation", "Oauth-Client-Attestation", "oauth-client-attestation", "OAUTH-CLIENT-ATTESTATION-POP", "Oauth-Client-Attestation-Pop", "oAuth-Client-Attestation-PoP"}
	for _, endpoint := range []string{"/elsewhere", "token"} {
		t.Run(endpoint, func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{})
			req := f.request(t.Context())
			status := http.StatusOK
			if endpoint != "token" {
				req = newRequest(t, t.Context(), f.server.URL+endpoint)
				status = http.StatusNotFound
			}
			for _, name := range names {
				req.Header[name] = []string{"mine"}
			}
			req.Header["Dpop"] = []string{"the caller's own"}
			req.Header.Set("X-Own", "kept")
			if endpoint == "token" {
				req.Header.Del("DPoP") // the server would judge it
			}
			before := slices.Sorted(maps.Keys(req.Header))
			f.want(status, req)
			if after := slices.Sorted(maps.Keys(req.Header)); !slices.Equal(before, after) {
				t.Errorf("the caller's header had %q, has %q", before, after)
			}
			requests := f.server.Requests()
			last := requests[len(requests)-1]
			want := 0
			if endpoint == "token" {
				want = 1
			}
			for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP} {
				if values := last.Header.Values(name); len(values) != want || slices.Contains(values, "mine") {
					t.Errorf("%d fields %s arrived, want %d of our own", len(values), name, want)
				}
			}
			if last.Header.Get("X-Own") != "kept" {
				t.Error("another header field was lost")
			}
			if endpoint != "token" && last.Header.Get("DPoP") != "the caller's own" {
				t.Error("the caller's own DPoP header was lost")
			}
		})
	}
}
