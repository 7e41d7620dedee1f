// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// shipTo makes a log handler that posts what it is told of the clock through the Client.
func shipTo(c **client.Client, shipped *atomic.Int64) *slog.Logger {
	return slog.New(handlerFunc(func(message string) {
		if *c == nil || !strings.Contains(message, "clock") {
			return
		}
		resp, err := (*c).HTTPClient().PostForm("https://logs.example.com/", url.Values{"m": {message}})
		if err == nil {
			resp.Body.Close()
			shipped.Add(1)
		}
	}))
}

// TestClockIsSetRightWhileRecordsGoThroughTheClient: what the clock has to say is said
// with nothing locked, wherever it is read: before a POST to somebody else, for an
// attestation, and for a challenge.
func TestClockIsSetRightWhileRecordsGoThroughTheClient(t *testing.T) {
	type step func(t *testing.T, r *rig, c *client.Client) error
	elsewhere := func(t *testing.T, _ *rig, c *client.Client) error {
		resp, err := c.HTTPClient().PostForm("https://other.example.com/", url.Values{"a": {"b"}})
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	token := func(t *testing.T, _ *rig, c *client.Client) error { return grant(t.Context(), c) }
	challenged := func(t *testing.T, r *rig, c *client.Client) error {
		r.Rotate() // the challenge at hand is refused, and another one received
		return grant(t.Context(), c)
	}
	metadata := func(r *rig, cfg *client.Config) {
		cfg.Metadata = &client.Metadata{Issuer: r.Issuer, TokenEndpoint: r.Endpoint(transporttest.Token), ChallengeEndpoint: r.Endpoint(transporttest.Challenge)}
	}
	for name, test := range map[string]struct {
		down  bool // the issuer answers 503
		edit  func(*rig, *client.Config)
		learn step
		then  step
	}{
		"a form for somebody else, the issuer down": {true, nil, elsewhere, elsewhere},
		"a token, with metadata at hand":            {false, metadata, token, token},
		"a challenge":                               {false, nil, token, challenged},
		"a challenge, with metadata at hand":        {false, metadata, token, challenged},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				var c *client.Client
				var shipped, offset atomic.Int64
				offset.Store(int64(-3 * time.Hour))
				r.Attester.Lifetime = 24 * time.Hour
				network := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					switch {
					case req.URL.Host == "logs.example.com" || req.URL.Host == "other.example.com":
						w.WriteHeader(http.StatusNoContent)
					case test.down:
						w.WriteHeader(http.StatusServiceUnavailable)
					default:
						r.ServeHTTP(w, req)
					}
				})
				made := r.client(t, func(cfg *client.Config) {
					cfg.Base = overTLS{dated{inProcess{network}, r.clock.now, 0, ""}}
					cfg.Clock = func() time.Time { return r.clock.now().Add(time.Duration(offset.Load())) }
					cfg.Logger = shipTo(&c, &shipped)
					if test.edit != nil {
						test.edit(r, cfg)
					}
				})
				c = made
				if test.edit != nil { // no metadata to learn the time from: the token endpoint's first answer
					_ = test.learn(t, r, c)
				}
				done := make(chan error, 1)
				go func() {
					_ = test.learn(t, r, c)
					learnt := shipped.Load()
					offset.Store(0) // the clock is set right
					err := test.then(t, r, c)
					if learnt == 0 || shipped.Load() == learnt {
						t.Errorf("%d records before the clock was set right and %d after", learnt, shipped.Load()-learnt)
					}
					done <- err
				}()
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(5 * time.Minute):
					t.Fatal("the Client hangs")
				}
				closed := make(chan struct{})
				go func() { c.Close(); close(closed) }()
				select {
				case <-closed:
				case <-time.After(time.Minute):
					t.Fatal("Close hangs")
				}
				synctest.Wait()
			})
		})
	}
}

// TestClockThatUsesItsClient, for each time that the clock is read with a challenge
// about to be given out or received.
func TestClockThatUsesItsClient(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var c *client.Client
		var within atomic.Bool
		var calls atomic.Int64
		made := r.client(t, func(cfg *client.Config) {
			cfg.Clock = func() time.Time {
				if c != nil && within.CompareAndSwap(false, true) {
					calls.Add(1)
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					_ = grant(ctx, c)
					cancel()
					within.Store(false)
				}
				return r.clock.now()
			}
		})
		c = made
		var took time.Duration
		for i := 0; i < 3 || calls.Load() < 3; i++ {
			if i == 50 {
				t.Fatalf("%d calls from within the clock after %d grants", calls.Load(), i)
			}
			r.Rotate()
			start := time.Now()
			if err := grant(t.Context(), c); err != nil {
				t.Error(err)
			}
			took += time.Since(start)
			time.Sleep(5 * time.Second) // the call from within may be one in the background, which goes on
		}
		// Each call from within may have to wait for what it was called in, and gives up.
		if took > time.Duration(calls.Load()+1)*5*time.Second {
			t.Errorf("%s, and %d calls from within the clock", took, calls.Load())
		}
	})
}
