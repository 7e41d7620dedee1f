// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// TestFormerEndpointBelowAResource: what is meant for the authorization server does not
// go to a resource around its former endpoint, until that is an endpoint again.
func TestFormerEndpointBelowAResource(t *testing.T) {
	const former = "https://rs.example/api/token"
	resources := []transport.Resource{{Identifier: "https://rs.example/api"}}
	servers := func(endpoint string) []transport.Server {
		return []transport.Server{{Issuer: "https://as.example", Endpoints: []string{endpoint}}}
	}
	var got *http.Request
	f := newFixture(t, policy{})
	f.Transport = f.another(func(c *transport.Config) {
		c.Servers, c.Resources, c.Base = servers(former), resources, recording(&got)
	})
	post := func() (*spyBody, error) {
		got = nil
		req, body := newRequest(t, t.Context(), former), newSpyBody()
		req.Body = body
		_, err := f.RoundTrip(req)
		return body, err
	}
	if err := f.Update(servers("https://as.example/token"), resources); err != nil {
		t.Fatal(err)
	}
	body, err := post()
	var failure *transport.Error
	if !errors.As(err, &failure) || failure.Step != transport.StepMetadata || failure.Audience != "https://as.example" || got != nil {
		t.Errorf("error %v, sent %v", err, got)
	}
	if n := body.closes.Load(); n != 1 {
		t.Errorf("body closed %d times", n)
	}
	if _, err := f.RoundTrip(get(t, former)); err != nil || got == nil {
		t.Errorf("GET: %v", err)
	}
	if err := f.Update(servers(former), resources); err != nil {
		t.Fatal(err)
	}
	if _, err := post(); err != nil || got == nil {
		t.Errorf("an endpoint again: %v", err)
	}
}

// TestOutcomeIsOfItsOwnRequest, and not of one that was made with a context that comes
// from an authenticated one's response.
func TestOutcomeIsOfItsOwnRequest(t *testing.T) {
	var got *http.Request
	f := newFixture(t, policy{})
	f.Transport = f.another(func(c *transport.Config) {
		c.Servers = []transport.Server{{Issuer: "https://as.example", Endpoints: []string{"https://as.example/token"}}}
		c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := recording(&got).RoundTrip(req)
			resp.Request = req
			return resp, err
		})
	})
	resp, err := f.RoundTrip(newRequest(t, t.Context(), "https://as.example/token"))
	if err != nil || transport.Sends(resp) != 1 {
		t.Fatal(err, transport.Sends(resp))
	}
	passed, err := f.RoundTrip(get(t, "https://elsewhere.example/").WithContext(resp.Request.Context()))
	if err != nil || transport.Sends(passed) != 0 {
		t.Error(err, transport.Sends(passed))
	}
}
