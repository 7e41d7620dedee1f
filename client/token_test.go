// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// pass lets fake time pass, in a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }

func TestTokenIsKeptUntilShortlyBeforeItExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		first, err := c.Token(t.Context(), "scope")
		if err != nil {
			t.Fatal(err)
		}
		issued := []string{first.AccessToken}
		for _, step := range []struct {
			after  time.Duration
			grants int
			isNew  bool
		}{ // of 300 s each, of which 290 are used; after 217.5 the next is fetched in the background
			{0, 1, false}, {217 * time.Second, 1, false}, {time.Second, 2, false}, {time.Second, 2, true},
			{280 * time.Second, 3, false}, {9 * time.Second, 3, true}, {291 * time.Second, 4, true}, {time.Hour, 5, true},
		} {
			pass(step.after)
			token, err := c.Token(t.Context(), "scope")
			if err != nil {
				t.Fatal(err)
			}
			if !token.Valid() {
				t.Error("an expired token")
			}
			synctest.Wait()
			if isNew := token.AccessToken != issued[len(issued)-1]; isNew != step.isNew {
				t.Errorf("after %v more: another token: %v, want %v", step.after, isNew, step.isNew)
			}
			issued = append(issued, token.AccessToken)
			if n := r.Count(transporttest.Token); n != step.grants {
				t.Errorf("after %v more: %d grants, want %d", step.after, n, step.grants)
			}
		}
	})
}

func TestTokenWithoutLifetimeIsNotKept(t *testing.T) {
	for name, lifetime := range map[string]any{"missing": nil, "zero": 0, "null": nil, "short": 5, "negative": -100} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.edit(transporttest.Token, func(answer map[string]any) {
				answer["expires_in"] = lifetime
				if name == "missing" {
					delete(answer, "expires_in")
				}
			})
			c := r.client(t)
			for range 3 {
				if token, err := c.Token(t.Context()); err != nil || token.AccessToken == "" {
					t.Fatalf("token %v, %v", token, err)
				}
			}
			if n := r.Count(transporttest.Token); n != 3 {
				t.Errorf("%d grants for 3 calls, want 3: nobody knows how long such a token is good", n)
			}
		})
	}
}

func TestTokenScopes(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	for _, test := range []struct {
		scopes []string
		sent   string // "-": no grant
	}{
		{nil, ""},
		{[]string{"b", "a"}, "a b"},
		{[]string{"a", "b"}, "-"},
		{[]string{"a", "b", "a", "b"}, "-"},
		{[]string{"a"}, "a"},
		{[]string{"a", "a", "a"}, "-"},
		{[]string{"c", "c"}, "c"},
		{[]string{"", "d", ""}, "d"},
		{[]string{""}, "-"},
		{[]string{}, "-"},
		{[]string{"e f"}, "e f"},
		{[]string{"A"}, "A"},
	} {
		given := append([]string(nil), test.scopes...)
		before := r.Count(transporttest.Token)
		if _, err := c.Token(t.Context(), test.scopes...); err != nil {
			t.Fatal(err)
		}
		if strings.Join(given, ",") != strings.Join(test.scopes, ",") {
			t.Errorf("the caller's slice was changed to %q", test.scopes)
		}
		requests := r.Requests(transporttest.Token)[before:]
		if test.sent == "-" {
			if len(requests) != 0 {
				t.Errorf("scopes %q: %d grants, want the kept token", test.scopes, len(requests))
			}
			continue
		}
		if len(requests) != 1 {
			t.Fatalf("scopes %q: %d grants, want 1", test.scopes, len(requests))
		}
		form, err := url.ParseQuery(string(requests[0].Body))
		if err != nil || form.Get("scope") != test.sent || form.Get("grant_type") != "client_credentials" || form.Get("client_id") != r.ClientID {
			t.Errorf("scopes %q: form %q (%v), want scope %q", test.scopes, requests[0].Body, err, test.sent)
		}
		for name, values := range form {
			if len(values) != 1 || values[0] == "" {
				t.Errorf("form has %s %q", name, values)
			}
		}
		if form.Has("client_secret") || requests[0].Header.Get("Authorization") != "" {
			t.Error("another client authentication beside ours")
		}
	}
}

func TestTokenIsShared(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		gate := r.Gate()
		defer gate.Open()
		release := make(chan struct{})
		r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
			<-release
			return r.Attester.Attest(req.Key.Public()), nil
		})
		c := r.client(t)
		const callers = 32
		sets := [][]string{{"a", "b"}, {"b", "a"}, {"c"}, {"b", "a", "b"}}
		type result struct {
			token *oauth2.Token
			err   error
		}
		results := make(chan result, callers)
		for i := range callers {
			go func() {
				token, err := c.Token(t.Context(), sets[i%len(sets)]...)
				results <- result{token, err}
			}()
		}
		synctest.Wait()
		close(release)
		tokens := make(map[string]int)
		for range callers {
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			tokens[r.token.AccessToken]++
			r.token.AccessToken = "changed by a caller"
		}
		if n := r.Count(transporttest.Token); n != 2 || len(tokens) != 2 {
			t.Errorf("%d grants and %d tokens for two sets of scopes, want 2 and 2", n, len(tokens))
		}
		if token, err := c.Token(t.Context(), "c"); err != nil || tokens[token.AccessToken] != callers/4 {
			t.Errorf("the kept token was changed: %v", err)
		}
		if n := r.Count(transporttest.Metadata); n != 1 {
			t.Errorf("%d metadata requests, want 1", n)
		}
	})
}

func TestTokenWaitsEndAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.Set(func(p *transporttest.Policy) {
			p.Before = func(request transporttest.Request) {
				if request.Endpoint == transporttest.Token {
					<-release
				}
			}
		})
		c := r.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := c.Token(ctx)
			first <- err
		}()
		synctest.Wait()
		go func() {
			_, err := c.Token(t.Context())
			second <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
		close(release)
		if err := <-second; err != nil {
			t.Error(err)
		}
		if n := r.Count(transporttest.Token); n != 1 {
			t.Errorf("%d grants, want 1", n)
		}
	})
}

func TestTokenWithEndedContextSendsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Token(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Token: %v, want context.Canceled", err)
		}
		if _, err := c.Endpoint(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Endpoint: %v, want context.Canceled", err)
		}
		if _, err := c.Refresh(ctx, "refresh"); !errors.Is(err, context.Canceled) {
			t.Errorf("Refresh: %v, want context.Canceled", err)
		}
		synctest.Wait()
		if n := r.total(); n != 0 {
			t.Errorf("%d requests sent for nobody", n)
		}
	})
}

func TestTokenTypeC45(t *testing.T) {
	for name, test := range map[string]struct {
		answered any
		dpop     client.DPoP
		method   transport.Method
		ok       bool
	}{
		"bearer":                          {"Bearer", client.DPoPOff, "", true},
		"bearer, lower case":              {"bearer", client.DPoPOff, "", true},
		"DPoP without a proof":            {"DPoP", client.DPoPOff, "", false},
		"missing":                         {nil, client.DPoPOff, "", false},
		"N_A":                             {"N_A", client.DPoPOff, "", false},
		"MAC":                             {"mac", client.DPoPOff, "", false},
		"DPoP, own key":                   {"DPoP", client.DPoPOwnKey, "", true},
		"DPoP, lower case":                {"dpop", client.DPoPOwnKey, "", true},
		"bearer, own key":                 {"Bearer", client.DPoPOwnKey, "", false},
		"missing, own key":                {nil, client.DPoPOwnKey, "", false},
		"DPoP, instance key":              {"DPoP", client.DPoPInstanceKey, "", true},
		"bearer, instance key":            {"Bearer", client.DPoPInstanceKey, "", false},
		"DPoP, combined":                  {"DPoP", client.DPoPOff, transport.MethodDPoP, true},
		"bearer, combined":                {"Bearer", client.DPoPOff, transport.MethodDPoP, false},
		"bearer, combined and own key":    {"Bearer", client.DPoPOwnKey, transport.MethodDPoP, false},
		"DPoP, combined and own key":      {"DPoP", client.DPoPOwnKey, transport.MethodDPoP, true},
		"a long text":                     {strings.Repeat("x", 1000), client.DPoPOff, "", false},
		"an access token in wrong member": {"secret.access.token", client.DPoPOff, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: test.method == transport.MethodDPoP})
			r.edit(transporttest.Token, func(answer map[string]any) {
				answer["token_type"] = test.answered
				if test.answered == nil {
					delete(answer, "token_type")
				}
			})
			c := r.client(t, func(cfg *client.Config) { cfg.DPoP, cfg.Method = test.dpop, test.method })
			for range 2 {
				token, err := c.Token(t.Context())
				if test.ok && err != nil || !test.ok && (!errors.Is(err, client.ErrTokenType) || token != nil) {
					t.Errorf("token %v, error %v, want ok = %t", token != nil, err, test.ok)
				}
				if err != nil && len(err.Error()) > 300 {
					t.Errorf("error has %d bytes", len(err.Error()))
				}
			}
			wants := 2
			if test.ok {
				wants = 1
			}
			if n := r.Count(transporttest.Token); n != wants {
				t.Errorf("%d grants, want %d", n, wants)
			}
		})
	}
}

// TestTokenBindsNoMessage: the request may be another caller's, and a context of
// BindMessage is good for one request alone.
func TestTokenBindsNoMessage(t *testing.T) {
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined=%v", combined), func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: combined})
			c := r.client(t)
			ctx := transport.BindMessage(t.Context(), []byte("message"))
			for _, scope := range []string{"a", "b"} {
				if _, err := c.Token(ctx, scope); err != nil {
					t.Fatal(err)
				}
			}
			for _, request := range r.Requests(transporttest.Token) {
				if request.PoP != nil && request.PoP.Claims["req_hash"] != nil {
					t.Error("the PoP vouches for the message")
				}
			}
		})
	}
}
