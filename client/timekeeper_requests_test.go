// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestRequestsOfAWrongClock: bodies arrive whole over the second connection, a caller's
// context ends the wait for it, and one that cannot be repeated is not.
func TestRequestsOfAWrongClock(t *testing.T) {
	r := newTimeRig(t, fresh)
	var bodies []string
	server, roots := fresh.serve(t, r.clock.now(), http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		bodies = append(bodies, string(body))
	}))
	keeper := r.keeper(-58 * 365 * day)
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	to := &http.Client{Transport: keeper.RoundTripper(base)}
	defer to.CloseIdleConnections()
	resp, err := to.Post(server.URL, "text/plain", strings.NewReader("one"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Request.URL.String() != server.URL {
		t.Errorf("the answer is to %s", resp.Request.URL)
	}
	if _, err := to.Post(server.URL, "text/plain", io.NopCloser(strings.NewReader("two"))); err == nil {
		t.Error("a body that is gone was sent")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
	if _, err := to.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(bodies) != 1 || bodies[0] != "one" {
		t.Errorf("bodies %q", bodies)
	}
}

// TestConcurrentRequestsOfAWrongClock at servers whose certificates have no time in common.
func TestConcurrentRequestsOfAWrongClock(t *testing.T) {
	r := newTimeRig(t, fresh)
	old := certificates{[2]time.Duration{3000 * day, 3000 * day}, [2]time.Duration{600 * day, 600 * day}, [2]time.Duration{90 * day, -day}}
	keeper := r.keeper(-58 * 365 * day)
	results := make(chan error, 40)
	for _, chain := range []certificates{fresh, old} {
		server, roots := chain.serve(t, r.clock.now(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
		network := keeper.RoundTripper(base)
		for range cap(results) / 2 {
			go func(server *httptest.Server) {
				resp, err := (&http.Client{Transport: network}).Get(server.URL)
				if err == nil {
					resp.Body.Close()
				}
				results <- err
			}(server)
		}
		defer network.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestTimekeeperAndClock: a Client has one clock.
func TestTimekeeperAndClock(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cfg := r.config()
	cfg.Timekeeper = client.NewTimekeeper(client.TimekeeperConfig{})
	if _, err := client.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "timekeeper") {
		t.Errorf("error %v", err)
	}
}

// TestTokenRenewalWithATimekeeper: a token that is kept is renewed before its end, as
// without one.
func TestTokenRenewalWithATimekeeper(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		keeper := client.NewTimekeeper(client.TimekeeperConfig{Clock: r.clock.now})
		c := r.client(t, func(cfg *client.Config) { cfg.Clock, cfg.Timekeeper = nil, keeper })
		for i, want := range []int{1, 1, 2} {
			if _, err := c.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := r.Count(transporttest.Token); n != want {
				t.Errorf("call %d: %d grants, want %d", i+1, n, want)
			}
			r.clock.advance(120 * time.Second)
			pass(120 * time.Second)
		}
	})
}
