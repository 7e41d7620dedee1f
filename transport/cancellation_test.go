// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestEachWaiterGivesUpAlone: a fetch that several wait for does not end with
// one of them, be it the one who started it (contract lines 11 and 12, test 8).
func TestEachWaiterGivesUpAlone(t *testing.T) {
	f := newFixture(t, policy{})
	synctest.Test(t, func(t *testing.T) {
		f.inProcess()
		release := make(chan struct{})
		f.server.Set(func(p *policy) {
			p.Before = func(r transporttest.Request) {
				if r.Endpoint == transporttest.Challenge {
					<-release
				}
			}
		})
		var ends []<-chan error
		var cancels []context.CancelFunc
		for range 4 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cancels = append(cancels, cancel)
			ends = append(ends, f.start(ctx))
			synctest.Wait() // so the first is the one who has started the fetch
		}
		f.counts(0, 1)
		for _, i := range []int{0, 2} {
			cancels[i]()
			synctest.Wait()
			select {
			case err := <-ends[i]:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("waiter %d: %v", i, err)
				}
			default:
				t.Errorf("waiter %d still waits", i)
			}
		}
		close(release)
		synctest.Wait()
		for _, i := range []int{1, 3} {
			if err := <-ends[i]; err != nil {
				t.Errorf("waiter %d: %v", i, err)
			}
		}
		f.counts(2, 1)
	})
}

// TestDetachedFetchEnds: what no request waits for any more ends by itself, and
// leaves nothing behind.
func TestDetachedFetchEnds(t *testing.T) {
	f := newFixture(t, policy{})
	t.Run("when the server answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f.inProcess()
			release := make(chan struct{})
			f.server.Set(func(p *policy) { p.Before = func(transporttest.Request) { <-release } })
			ctx, cancel := context.WithCancel(t.Context())
			end := f.start(ctx)
			synctest.Wait()
			cancel()
			if err := <-end; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			close(release)
			synctest.Wait()
			f.server.Forget()
			if err := <-f.start(t.Context()); err != nil {
				t.Error(err)
			}
			f.counts(1, 0) // its challenge was not lost
		})
	})
	t.Run("when the server does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f.inProcess(func(c *transport.Config) { c.Clock = time.Now })
			f.inProcess()
			release := make(chan struct{})
			f.server.Set(func(p *policy) { p.Before = func(transporttest.Request) { <-release } })
			start := time.Now()
			end := f.start(t.Context())
			if err := <-end; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			// The bubble's clock moved because all else was waiting.
			if waited := time.Since(start); waited > time.Minute {
				t.Errorf("the fetch ended after %s", waited)
			}
			close(release)
		}) // fails if a goroutine is left
	})
}

// TestCancelWhileWaiting: contract line 12. Nothing but the context ends the
// wait, and who is cancelled harms nobody else.
func TestCancelWhileWaiting(t *testing.T) {
	f := newFixture(t, policy{})
	tests := []struct {
		name string
		// stick returns what makes the first request stick, and what lets it go.
		stick func(c *transport.Config) (let func())
		step  transport.Step
	}{
		{"key", func(c *transport.Config) func() {
			key := newStuckKey(c.Key)
			c.Key = key
			return func() { close(key.let) }
		}, "sign"},
		{"challenge", func(c *transport.Config) func() {
			let := make(chan struct{})
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Challenge {
						<-let
					}
				}
			})
			return func() { close(let) }
		}, "get challenge"},
		{"attestation", func(c *transport.Config) func() {
			let, source := make(chan struct{}), c.Attestations
			c.Attestations = sourceFunc(func(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-let:
					return source.Attestation(ctx, rejected, signingAlgs)
				}
			})
			return func() { close(let) }
		}, "get attestation"},
		{"answer", func(c *transport.Config) func() {
			let := make(chan struct{})
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Token {
						<-let
					}
				}
			})
			return func() { close(let) }
		}, "send"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f.server.Set(func(p *policy) { p.Before = nil })
			synctest.Test(t, func(t *testing.T) {
				var let func()
				f.inProcess(func(c *transport.Config) { let = test.stick(c) })
				stays := f.start(t.Context())
				synctest.Wait() // it sticks
				ctx, cancel := context.WithCancel(t.Context())
				gives := f.start(ctx)
				deadline, stop := context.WithTimeout(t.Context(), time.Second)
				defer stop()
				expires := f.start(deadline)
				synctest.Wait()
				cancel()
				synctest.Wait()
				select {
				case err := <-gives:
					if !errors.Is(err, context.Canceled) {
						t.Errorf("cancelled: %v", err)
					}
					if own := (*transport.Error)(nil); !errors.As(err, &own) || own.Step != test.step || own.Send != 1 {
						t.Errorf("cancelled: %#v, want an *Error of step %q", err, test.step)
					}
				default:
					t.Error("a cancelled request still waits")
				}
				if err := <-expires; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("deadline: %v", err)
				}
				let()
				if err := <-stays; err != nil {
					t.Errorf("the other request: %v", err)
				}
			})
		})
	}
}

// TestNoGoroutineIsLeft: over the network, with cancelled requests, a stalled
// fetch and a slow signer.
func TestNoGoroutineIsLeft(t *testing.T) {
	f := newFixture(t, policy{})
	gate := f.server.Gate()
	f.server.Set(func(p *policy) { p.Before = gate.Hold })
	ctx, cancel := context.WithCancel(t.Context())
	var ends []<-chan error
	for range 5 {
		ends = append(ends, f.start(ctx))
	}
	gate.Arrived()
	cancel()
	for _, end := range ends {
		if err := <-end; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
	gate.Open()
	if left := leftBehind(); len(left) != 0 {
		t.Errorf("%d goroutines left:\n%s", len(left), left[0])
	}
}

// leftBehind returns the stacks of goroutines that run code of this module's
// transport, once those that are about to end have ended.
func leftBehind() []string {
	var left []string
	for range 20000 {
		left = left[:0]
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, stack := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(stack, "instancekey/transport.") && !strings.Contains(stack, "transport_test.Test") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return nil
		}
		runtime.Gosched()
	}
	return left
}
