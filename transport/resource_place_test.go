// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// TestResourcePathWithDotSegments: what a server takes for a place outside the
// resource gets no credentials.
func TestResourcePathWithDotSegments(t *testing.T) {
	for path, signed := range map[string]bool{
		"/api": true, "/api/": true, "/api/x": true, "/api/x..y": true, "/api/...": true,
		"/apis": false, "/API": false,
		"/api/..": false, "/api/../other": false, "/api/./x": false, "/api/%2e%2e/other": false, "/api/.%2E/other": false, "/api/%2E": false,
		"/api/..%2fother": false, `/api/..%5cother`: false,
	} {
		var got *http.Request
		f := newFixture(t, policy{})
		f.Transport = f.another(func(c *transport.Config) {
			c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
			c.Base = recording(&got)
		})
		if _, err := f.RoundTrip(get(t, "https://rs.example"+path)); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if has := got.Header.Get(transport.HeaderAttestation) != ""; has != signed {
			t.Errorf("%s sent with credentials: %v, want %v", path, has, signed)
		}
	}
}

// TestOpaqueURLOfAResource: the path that is compared is not the one that is
// sent.
func TestOpaqueURLOfAResource(t *testing.T) {
	var got *http.Request
	f := newFixture(t, policy{})
	f.Transport = f.another(func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
		c.Base = recording(&got)
	})
	req := get(t, "https://rs.example/api/x")
	req.URL.Opaque = "/other"
	if _, err := f.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if got != req {
		t.Error("sent with credentials")
	}
}
