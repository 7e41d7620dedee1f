// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const (
	firstResource  = "https://rs.example.com/api"
	secondResource = "https://other.example.com"
)

// TestTokenForOneResource is RFC 8707: a token for one resource is no other's,
// and not the one for all.
func TestTokenForOneResource(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, firstResource, secondResource)
	c := r.client()
	issued := make(map[string]string) // access tokens by what they are for
	for _, step := range []struct {
		resource string // "": Token
		scopes   []string
		asked    []string // resource parameters; nil: the kept token
		scope    string
	}{
		{firstResource, nil, []string{firstResource}, ""},
		{firstResource, nil, nil, ""},
		{secondResource, nil, []string{secondResource}, ""},
		{"", nil, []string{secondResource, firstResource}, ""},
		{firstResource, []string{"b", "a", "b"}, []string{firstResource}, "a b"},
		{firstResource, []string{"a", "b"}, nil, "a b"},
		{secondResource, []string{"a", "b"}, []string{secondResource}, "a b"},
		{"", []string{"a", "b"}, []string{secondResource, firstResource}, "a b"},
		{"", []string{firstResource}, []string{secondResource, firstResource}, firstResource},
		{firstResource, nil, nil, ""},
		{"", []string{"a", "b"}, nil, "a b"},
	} {
		before := r.Count(transporttest.Token)
		get := c.Token
		if step.resource != "" {
			get = func(ctx context.Context, scopes ...string) (*oauth2.Token, error) {
				return c.TokenFor(ctx, step.resource, scopes...)
			}
		}
		token, err := get(t.Context(), step.scopes...)
		if err != nil {
			t.Fatal(err)
		}
		name := step.resource + " " + step.scope
		if kept, ok := issued[name]; ok != (step.asked == nil) || ok && kept != token.AccessToken {
			t.Errorf("%q: kept: %t, want %t and the same token", name, ok, step.asked == nil)
		}
		issued[name] = token.AccessToken
		requests := r.Requests(transporttest.Token)[before:]
		if step.asked == nil {
			if len(requests) != 0 {
				t.Errorf("%q: %d grants, want the kept token", name, len(requests))
			}
			continue
		}
		if len(requests) != 1 {
			t.Fatalf("%q: %d grants, want 1", name, len(requests))
		}
		form, err := url.ParseQuery(string(requests[0].Body))
		slices.Sort(form["resource"])
		if err != nil || !slices.Equal(form["resource"], step.asked) || form.Get("scope") != step.scope || form.Get("grant_type") != "client_credentials" {
			t.Errorf("%q: form %v (%v), want resource %q", name, form, err, step.asked)
		}
	}

	token, err := c.TokenFor(t.Context(), firstResource)
	if err != nil {
		t.Fatal(err)
	}
	c.Forget(token)
	again, err := c.TokenFor(t.Context(), firstResource)
	if err != nil || again.AccessToken == token.AccessToken {
		t.Errorf("a token that was to be forgotten: %v", err)
	}
}

func TestTokenForIsShared(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, firstResource, secondResource)
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r.Set(func(p *transporttest.Policy) {
			p.Before = func(request transporttest.Request) {
				if request.Endpoint == transporttest.Token {
					<-release
				}
			}
		})
		c := r.client()
		const callers = 12
		results := make(chan error, callers)
		for i := range callers {
			go func() {
				var err error
				switch i % 3 {
				case 0:
					_, err = c.Token(t.Context(), "a")
				case 1:
					_, err = c.TokenFor(t.Context(), firstResource, "a")
				default:
					_, err = c.TokenFor(t.Context(), secondResource, "a")
				}
				results <- err
			}()
		}
		synctest.Wait()
		close(release)
		for range callers {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if n := r.Count(transporttest.Token); n != 3 {
			t.Errorf("%d grants, want 3", n)
		}
		c.Close()
	})
}

// TestTokenForOthers: nothing is sent for a resource that is not configured.
func TestTokenForOthers(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, firstResource)
	configured := r.client()
	none := r.client(func(cfg *client.Config) { cfg.Resources = nil })
	for _, c := range []*client.Client{configured, none} {
		for _, resource := range []string{"", secondResource, firstResource + "/", firstResource + "/x", "https://RS.example.com/api"} {
			if token, err := c.TokenFor(t.Context(), resource); err == nil || token != nil {
				t.Errorf("%q: token %v, error %v", resource, token, err)
			}
		}
	}
	if n := r.total(); n != 0 {
		t.Errorf("%d requests, want 0", n)
	}
}
