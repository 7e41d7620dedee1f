// SPDX-License-Identifier: Apache-2.0

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

// TestResourceKeepsHeader: what the application sends to its own resource is
// nobody else's.
func TestResourceKeepsHeader(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
	rs := r.resources[0]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rs.identifier, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"Idempotency-Key", "X-Idempotency-Key", "Authorization", "Content-Type", "X-Own"}
	for _, name := range names {
		req.Header.Set(name, "Bearer value")
	}
	resp, err := r.client().HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, name := range names {
		if got := rs.got()[0].Header[name]; !slices.Equal(got, []string{"Bearer value"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
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
