// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestStalledRequestHoldsUpNobodyForLong: a request that several may wait for and that
// is never answered, as on a connection that has died, is made once more beside the
// first after 5 seconds. Those who gave up on it before do not multiply it.
func TestStalledRequestHoldsUpNobodyForLong(t *testing.T) {
	for _, endpoint := range []string{transporttest.Metadata, transporttest.Challenge, transporttest.Token} {
		t.Run(endpoint, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				ended := make(chan struct{})
				t.Cleanup(func() { close(ended) })
				var stalled atomic.Bool
				r.Set(func(p *transporttest.Policy) {
					p.Before = func(request transporttest.Request) {
						if request.Endpoint == endpoint && !stalled.Swap(true) {
							<-ended
						}
					}
				})
				c := r.client(t)
				get := func(ctx context.Context) error {
					if endpoint == transporttest.Token {
						_, err := c.Token(ctx)
						return err
					}
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Endpoint(transporttest.Token), strings.NewReader("grant_type=g"))
					if err != nil {
						return err
					}
					req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					resp, err := c.HTTPClient().Do(req)
					if err != nil {
						return err
					}
					return resp.Body.Close()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := get(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the stalled one: %v, want context.DeadlineExceeded", err)
				}
				start := time.Now()
				if err := get(t.Context()); err != nil || time.Since(start) != 4*time.Second {
					t.Errorf("the next one: after %v: %v", time.Since(start), err)
				}
				if n := r.Count(endpoint); n != 2 {
					t.Errorf("%d requests to the endpoint, want 2", n)
				}
			})
		})
	}
}

// TestGrantWaitsForItsChallenge: a grant whose retry waits for a challenge says so. It
// does not count as one that the token endpoint leaves without an answer, which would
// be made once more.
func TestGrantWaitsForItsChallenge(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		r.Rotate()
		ended := make(chan struct{})
		t.Cleanup(func() { close(ended) })
		r.Set(func(p *transporttest.Policy) {
			p.Offer = transporttest.OfferNever
			p.Before = func(request transporttest.Request) {
				if request.Endpoint == transporttest.Challenge {
					<-ended
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.Token(ctx)
		var failed *transport.Error
		if !errors.As(err, &failed) || failed.Step != transport.StepChallenge || failed.Send != 2 {
			t.Errorf("%v, want the step %q of send 2", err, transport.StepChallenge)
		}
	})
}
