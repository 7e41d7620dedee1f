// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestCallersDoNotPileUp: 64 callers with 2 seconds each, again and again, at an
// endpoint that answers nothing for 40 seconds. It may answer later what it held.
func TestCallersDoNotPileUp(t *testing.T) {
	const callers = 64
	for _, endpoint := range []string{transporttest.Metadata, transporttest.Challenge, transporttest.Token, fromAttester} {
		for name, holds := range map[string]bool{"": true, ", never": false} {
			t.Run(endpoint+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					begin, up, ended := time.Now(), make(chan struct{}), make(chan struct{})
					t.Cleanup(func() { close(ended) })
					var open, most, begun, goroutines atomic.Int64
					hold := func(ctx context.Context) {
						begun.Add(1)
						if n := open.Add(1); n > most.Load() {
							most.Store(n)
						}
						defer open.Add(-1)
						held := ended
						if holds || time.Since(begin) >= 40*time.Second {
							held = up
						}
						select {
						case <-held:
						case <-ctx.Done():
						}
					}
					base := endpointBase{inProcess{r}, r, endpoint, hold}
					r.attester.set(func(ctx context.Context, req client.AttestRequest, _ int) (string, error) {
						if endpoint == fromAttester {
							hold(ctx)
						}
						return r.Attester.Attest(req.Key.Public()), ctx.Err()
					})
					c := r.client(t, func(cfg *client.Config) { cfg.Base = base })
					before := runtime.NumGoroutine()
					served := make(chan time.Duration, callers)
					for range callers {
						go func() {
							for t.Context().Err() == nil {
								ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
								_, err := c.Token(ctx)
								cancel()
								if err == nil {
									served <- time.Since(begin)
									return
								}
							}
						}()
					}
					for range 39 {
						pass(500 * time.Millisecond) // between the deadlines
						synctest.Wait()
						goroutines.Store(max(goroutines.Load(), int64(runtime.NumGoroutine()-before)))
						pass(500 * time.Millisecond)
					}
					signed := r.store.signed.Load()
					pass(time.Second)
					close(up)
					last := time.Duration(0)
					for range callers {
						last = max(last, <-served)
					}
					want := 41 * time.Second
					if !holds {
						want = 50 * time.Second
					}
					if last > want && !(endpoint == fromAttester && !holds) { // who is asked once at a time, for 3 minutes
						t.Errorf("the last was served after %s, want %s", last, want)
					}
					if most.Load() > 2 || goroutines.Load() > callers+40 {
						t.Errorf("%d requests open at a time, %d goroutines", most.Load(), goroutines.Load())
					}
					if endpoint == transporttest.Token && signed > begun.Load() || endpoint != transporttest.Token && signed != 0 {
						t.Errorf("%d signatures for %d requests", signed, begun.Load())
					}
					c.Close()
					pass(time.Second)
					if n := open.Load(); n != 0 {
						t.Errorf("%d requests are open a second after Close", n)
					}
				})
			})
		}
	}
}
