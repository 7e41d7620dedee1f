// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// TestDiscoveryErrors: whoever asked for a token can tell an issuer that is away
// from one that will not do.
func TestDiscoveryErrors(t *testing.T) {
	const oidc = issuerURL + "/.well-known/openid-configuration"
	refused := errors.New("connection refused")
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, test := range map[string]struct {
		first, second http.HandlerFunc
		dial          error
		body          func(context.Context) error
		status        int
		temporary     bool
		is            error
		names         string
	}{
		"unreachable":         {dial: refused, temporary: true, is: refused, names: wellKnown},
		"cut":                 {first: abort, temporary: true, is: io.ErrUnexpectedEOF, names: wellKnown},
		"body cut":            {first: text(document(issuerURL, nil)), body: breakOff, temporary: true, is: io.ErrUnexpectedEOF, names: wellKnown},
		"429":                 {first: status(429), status: 429, temporary: true, names: "429 Too Many Requests"},
		"503":                 {first: status(503), status: 503, temporary: true, names: "503 Service Unavailable"},
		"404, then cut":       {second: abort, temporary: true, is: io.ErrUnexpectedEOF, names: oidc},
		"403, then 503":       {first: status(403), second: status(503), status: 503, temporary: true, names: "403 Forbidden"},
		"401, then 404":       {first: status(401), status: 401, names: "401 Unauthorized"},
		"found nowhere":       {status: 404, names: oidc},
		"redirect":            {first: redirect(302, oidc), status: 302, names: wellKnown},
		"no JSON":             {first: text("<html>"), names: wellKnown},
		"of another issuer":   {first: text(document("https://other.example.com", nil)), names: wellKnown},
		"an endpoint is http": {first: text(document(issuerURL, map[string]any{"token_endpoint": "http://as.example.com/"})), names: "token_endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiscoverer(t, issuerURL, func(cfg *client.Config) {
				switch base := cfg.Base; {
				case test.dial != nil:
					cfg.Base = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, test.dial })
				case test.body != nil:
					cfg.Base = cutBodies{base, strings.TrimPrefix(wellKnown, issuerURL), test.body}
				}
			})
			for place, page := range map[string]http.HandlerFunc{wellKnown: test.first, oidc: test.second} {
				if page != nil {
					d.site.set(place, page)
				}
			}
			_, err := d.Token(t.Context())
			var failure *transport.Error
			if !errors.Is(err, client.ErrMetadata) || !errors.As(err, &failure) {
				t.Fatalf("error %v, want ErrMetadata and a *transport.Error", err)
			}
			if failure.Step != "get metadata" || failure.Audience != issuerURL || failure.Thumbprint == "" || failure.Status != test.status {
				t.Errorf("step %q, audience %q, thumbprint %q, status %d, want status %d", failure.Step, failure.Audience, failure.Thumbprint, failure.Status, test.status)
			}
			if failure.Temporary() != test.temporary {
				t.Errorf("temporary: %t", !test.temporary)
			}
			if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.names) {
				t.Errorf("error %v, want %v, and %q in it", err, test.is, test.names)
			}
			if n := d.store.signed.Load(); n != 0 {
				t.Errorf("%d signatures made, want 0", n)
			}
		})
	}
}

// TestResourceDiscoveryErrors: the same for a resource.
func TestResourceDiscoveryErrors(t *testing.T) {
	const api = "https://api.example.com/v1"
	for code, temporary := range map[int]bool{503: true, 429: true, 0: false} {
		d := newDiscoverer(t, issuerURL, func(cfg *client.Config) { cfg.Resources = []client.Resource{{Identifier: api}} })
		page := status(code)
		if code == 0 {
			page = text(`{"resource":"https://other.example.com"}`)
		}
		d.site.set("https://api.example.com/.well-known/oauth-protected-resource/v1", page)
		_, err := d.HTTPClient().Get(api)
		var failure *transport.Error
		if !errors.Is(err, client.ErrMetadata) || !errors.As(err, &failure) {
			t.Fatalf("%d: error %v, want ErrMetadata and a *transport.Error", code, err)
		}
		if failure.Step != "get metadata" || failure.Audience != api || failure.Status != code || failure.Temporary() != temporary {
			t.Errorf("%d: step %q, audience %q, status %d, temporary %t", code, failure.Step, failure.Audience, failure.Status, failure.Temporary())
		}
	}
}
