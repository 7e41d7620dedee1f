// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestSignAheadCloses: Close leaves no goroutine and no timer, whatever is being done.
func TestSignAheadCloses(t *testing.T) {
	for name, after := range map[string]time.Duration{
		"before it is begun": 0, "while it is signed": 100 * time.Millisecond, "afterwards": time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			signingAhead(t, policy{}, func(r *aheadRig) {
				r.takes()
				time.Sleep(after)
				start := time.Now()
				r.Close()
				synctest.Wait()
				if took := time.Since(start); took != 0 {
					t.Errorf("Close took %s", took)
				}
				if why := r.whys(); name == "afterwards" && (len(why) != 1 || !errors.Is(why[0], transport.ErrClosed)) {
					t.Errorf("unused: %v", why)
				}
				time.Sleep(time.Hour)
				if n := r.key.signed.Load(); n > 2 || after == 0 && n > 1 {
					t.Errorf("%d signatures", n)
				}
			})
		})
	}
}

// TestSignAheadHooks: a hook that is called for what is signed ahead can make requests.
func TestSignAheadHooks(t *testing.T) {
	var calls []string
	signingAhead(t, policy{Kind: transporttest.SingleUse}, func(r *aheadRig) {
		for range 3 {
			r.takes()
			time.Sleep(time.Minute)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if slices.Sort(calls); !slices.Equal(calls, []string{"challenge", "signature", "unused"}) {
			t.Errorf("hooks that were called in the background: %q", calls)
		}
	}, func(r *aheadRig, c *transport.Config) {
		unused := c.Trace.Unused
		call := func(ctx context.Context, what string) {
			r.mu.Lock()
			first := !slices.Contains(calls, what)
			if first { // or there would be no end
				calls = append(calls, what)
			}
			r.mu.Unlock()
			if first {
				r.want(http.StatusOK, r.request(ctx))
			}
		}
		c.Trace = &transport.Trace{
			Unused: func(ctx context.Context, e transport.TraceEvent) {
				unused(ctx, e)
				if r.Transport != nil && !errors.Is(e.Err, transport.ErrClosed) {
					call(context.WithoutCancel(ctx), "unused")
				}
			},
			Signature: func(ctx context.Context, e transport.TraceEvent) {
				if e.Ahead && e.Err == nil {
					call(ctx, "signature")
				}
			},
			Challenge: func(ctx context.Context, e transport.TraceEvent) {
				if r.key.signed.Load() >= 3 && e.Err == nil {
					call(ctx, "challenge")
				}
			},
		}
	})
}

func TestSignAheadBounds(t *testing.T) {
	f := newFixture(t, policy{})
	for d, ok := range map[time.Duration]bool{-1: false, 0: true, 1: true, time.Minute: true, time.Minute + 1: false} {
		_, err := transport.New(transport.Config{Key: f.key, Attestations: f.source, SignAhead: d})
		if (err == nil) != ok {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// TestSignAheadTogether: requests at the same time, while challenges rotate, tables are
// replaced and requests are given up, send nothing twice.
func TestSignAheadTogether(t *testing.T) {
	for name, p := range map[string]policy{
		"reusable":   {Offer: transporttest.OfferAlways},
		"single use": {Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways},
	} {
		t.Run(name, func(t *testing.T) {
			signingAhead(t, p, func(r *aheadRig) {
				var wg sync.WaitGroup
				// So that the kind is known: by a refusal, where two requests meet at a challenge.
				for n := 0; n < 3 || p.Kind == transporttest.SingleUse && r.server.Refused() == 0; n++ {
					if n == 100 {
						t.Fatal("no two requests have met")
					}
					r.takes()
					wg.Go(func() { r.takes() })
					r.takes()
					wg.Wait()
				}
				twice, refused := r.twice(), r.server.Refused()
				for i := range 16 {
					wg.Go(func() {
						for n := range 20 {
							ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
							if n%5 == 4 {
								ctx, cancel = context.WithTimeout(r.t.Context(), time.Duration(i*n)*time.Millisecond)
							}
							if resp, err := r.RoundTrip(r.request(ctx)); err == nil {
								read(t, resp)
							} else if ctx.Err() == nil {
								t.Error(err)
							}
							cancel()
							time.Sleep(time.Duration(i*n) * 10 * time.Millisecond)
						}
					})
				}
				wg.Go(func() {
					for range 50 {
						time.Sleep(731 * time.Millisecond)
						if p.Kind != transporttest.SingleUse {
							r.server.Rotate()
						}
						if err := r.Update([]transport.Server{r.server.Transport()}, nil); err != nil {
							t.Error(err)
						}
					}
				})
				wg.Wait()
				twice, refused = r.twice()-twice, r.server.Refused()-refused
				sent, _ := r.SignedAhead()
				if sent < 10 || p.Kind == transporttest.SingleUse && (twice > 0 || refused > 0) {
					t.Errorf("%d sent that were signed ahead, %d challenges twice, %d refused", sent, twice, refused)
				}
			})
		})
	}
}
