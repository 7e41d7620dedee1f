// SPDX-License-Identifier: Apache-2.0

package clienttest_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestResource: what the resource refuses, and what its API is given.
func TestResource(t *testing.T) {
	now, mu := time.Now(), new(sync.Mutex)
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Echo", string(body))
	})
	a := newApp(t, clienttest.New(t, clienttest.Config{API: api, TokenLifetime: time.Minute, Clock: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}}), bound)
	token, err := a.client.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := a.client.ResourceClient().Post(a.Resource.URL, "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Header.Get("Echo") != "hello" || string(a.Resource.Requests()[0].Body) != "hello" {
		t.Errorf("the API got %q", resp.Header.Get("Echo"))
	}
	status := func(authorization string, c *http.Client) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Resource.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), map[bool]string{true: "DPoP", false: "Bearer"}[strings.HasPrefix(authorization, "DPoP")]) {
			t.Errorf("WWW-Authenticate: %s", resp.Header.Get("WWW-Authenticate"))
		}
		return resp.StatusCode
	}
	other := newApp(t, a.Services, bound)
	for name, test := range map[string]struct {
		authorization string
		client        *http.Client
		status        int
	}{
		"good":            {"DPoP " + token.AccessToken, a.client.HTTPClient(), 200},
		"none":            {"", http.DefaultClient, 401},
		"unknown":         {"Bearer x", http.DefaultClient, 401},
		"bound as bearer": {"Bearer " + token.AccessToken, http.DefaultClient, 401},
		"without a proof": {"DPoP " + token.AccessToken, http.DefaultClient, 401},
		"another's":       {"DPoP " + token.AccessToken, other.client.HTTPClient(), 401},
	} {
		t.Run(name, func(t *testing.T) {
			if got := status(test.authorization, test.client); got != test.status {
				t.Errorf("status %d, want %d: %v", got, test.status, a.Resource.Requests())
			}
		})
	}
	mu.Lock()
	now = now.Add(2 * time.Minute)
	mu.Unlock()
	if got := status("DPoP "+token.AccessToken, a.client.HTTPClient()); got != 401 {
		t.Errorf("status %d with a token that has expired", got)
	}
	if n := len(a.Resource.Requests()); n != 8 {
		t.Errorf("%d requests, want 8", n)
	}
	if _, ok := a.introspect(token.AccessToken)["scope"]; ok {
		t.Error("an expired token is active")
	}
}

// TestRevocation by the client, and introspection.
func TestRevocation(t *testing.T) {
	a := newApp(t, clienttest.New(t, clienttest.Config{}))
	token, err := a.client.Token(t.Context(), "read")
	if err != nil {
		t.Fatal(err)
	}
	if answer := a.introspect(token.AccessToken); answer["active"] != true || answer["scope"] != "read" {
		t.Errorf("it is %v", answer)
	}
	metadata, err := a.client.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.post(metadata.RevocationEndpoint, url.Values{"token": {token.AccessToken}}, http.StatusOK, new(map[string]any))
	if answer := a.introspect(token.AccessToken); answer["active"] != false || a.call(token) != 401 {
		t.Errorf("after revocation it is %v", answer)
	}
}

// TestTokenForOther: a token for another resource is refused.
func TestTokenForOther(t *testing.T) {
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	a := newApp(t, clienttest.New(t, clienttest.Config{}), func(cfg *client.Config) {
		cfg.Resources = append(cfg.Resources, client.Resource{Identifier: elsewhere.URL})
	})
	token, err := a.client.TokenFor(t.Context(), elsewhere.URL)
	if err != nil {
		t.Fatal(err)
	}
	if status := a.call(token); status != 401 {
		t.Errorf("status %d", status)
	}
}

// TestAttester: it can be away and refuse, and counts.
func TestAttester(t *testing.T) {
	s := clienttest.New(t, clienttest.Config{ClientID: "meter"})
	a := newApp(t, s)
	s.Attester.SetAway(true)
	if _, err := a.client.Token(t.Context()); !errors.Is(err, client.ErrAttesterUnavailable) {
		t.Errorf("away: %v", err)
	}
	s.Attester.SetAway(false)
	if _, err := a.client.Token(t.Context()); err != nil || s.Attester.Attested() != 1 {
		t.Errorf("back: %v, %d attestations", err, s.Attester.Attested())
	}
	s.Attester.SetRefuse(true)
	if err := a.client.Renew(t.Context()); !errors.Is(err, client.ErrAttestationRefused) {
		t.Errorf("refusing: %v", err)
	}
	s.Attester.SetRefuse(false)
	b := newApp(t, s, func(cfg *client.Config) { cfg.ClientID = "another" })
	if _, err := b.client.Token(t.Context()); !errors.Is(err, client.ErrAttestationRefused) || s.Attester.Attested() != 1 {
		t.Errorf("another client_id: %v, %d attestations", err, s.Attester.Attested())
	}
	s.Resource.SetAway(true)
	if resp, err := a.client.HTTPClient().Get(s.Resource.URL); err == nil {
		resp.Body.Close()
		t.Error("the resource is away, and has answered")
	}
}

// TestPolicy: a hostile server is still a server with grants.
func TestPolicy(t *testing.T) {
	a := newApp(t, clienttest.New(t, clienttest.Config{Policy: transporttest.Policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways}}))
	for range 3 {
		if _, err := a.codeGrant(true); err != nil {
			t.Error(err)
		}
	}
	a.Server.Set(func(p *transporttest.Policy) { p.UnknownClient = true })
	_, err := a.client.Token(t.Context())
	a.wantCode(err, "invalid_client")
	if n := a.Server.Count(clienttest.Authorization); n != 3 {
		t.Errorf("%d authorization requests, want 3", n)
	}
}
