package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// inProcess makes the Transport anew, with no network between it and the server.
func (f *fixture) inProcess(edits ...func(*transport.Config)) *base {
	direct := &base{handler: f.server}
	f.Transport = f.another(append(edits, func(c *transport.Config) { c.Base = direct })...)
	return direct
}

// together sends n requests from each of g goroutines, which start at once, and
// returns how many were not answered with 200.
func (f *fixture) together(g, n int) (failed int) {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		start = make(chan struct{})
	)
	for range g {
		wait.Go(func() {
			<-start
			for range n {
				resp, err := f.RoundTrip(f.request(context.Background()))
				if err == nil {
					read(f.t, resp)
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			}
		})
	}
	close(start)
	wait.Wait()
	return failed
}

// noneTwice checks that no jti and no challenge was sent twice.
func (f *fixture) noneTwice(challenges bool) {
	f.t.Helper()
	seen := make(map[string]int)
	for i, r := range f.server.Requests(transporttest.Token) {
		if first, ok := seen["jti "+r.PoP.ID]; ok {
			f.t.Errorf("requests %d and %d have one jti", first, i)
		}
		seen["jti "+r.PoP.ID] = i
		if first, ok := seen["challenge "+r.PoP.Challenge]; ok && challenges {
			f.t.Errorf("requests %d and %d have one challenge", first, i)
		}
		seen["challenge "+r.PoP.Challenge] = i
	}
}

// TestReusableServerConcurrently: decision 4, 32 goroutines × 10 requests.
func TestReusableServerConcurrently(t *testing.T) {
	for _, network := range []bool{true, false} {
		for _, offer := range []transporttest.Offer{transporttest.OfferInErrors, transporttest.OfferAlways} {
			t.Run(fmt.Sprintf("network=%v,offer=%v", network, offer), func(t *testing.T) {
				f := newFixture(t, policy{Offer: offer})
				if !network {
					f.inProcess()
				}
				if failed := f.together(32, 10); failed != 0 {
					t.Errorf("%d requests failed", failed)
				}
				f.counts(320, 1)
				if n := f.server.Refused(); n != 0 {
					t.Errorf("%d PoPs refused", n)
				}
				f.noneTwice(false)
			})
		}
	}
}

// TestOneFetchHoweverTheyMeet: a caller who comes just as another's fetch ends
// must not begin a second one.
func TestOneFetchHoweverTheyMeet(t *testing.T) {
	f := newFixture(t, policy{})
	direct := &base{handler: f.server}
	for round := range 300 {
		f.Transport = f.another(func(c *transport.Config) { c.Base = direct })
		f.server.Forget()
		f.together(8, 1)
		if n := f.server.Count(transporttest.Challenge); n != 1 {
			t.Fatalf("round %d: %d fetches", round, n)
		}
	}
}

// TestSingleUseServerConcurrently: decision 4; contract, test 6.
func TestSingleUseServerConcurrently(t *testing.T) {
	t.Run("kind known", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.token(http.StatusOK)
		f.token(http.StatusOK) // refused first, since the challenge was used before
		if n := f.server.Refused(); n != 1 {
			t.Fatalf("%d refusals have taught the kind, want 1", n)
		}
		f.server.Set(func(p *policy) { p.Offer = transporttest.OfferAlways })
		f.server.Forget()
		if failed := f.together(32, 10); failed != 0 {
			t.Errorf("%d requests failed", failed)
		}
		if n := f.server.Refused(); n != 0 {
			t.Errorf("%d PoPs refused", n)
		}
		if n := f.server.Count(transporttest.Token); n != 320 {
			t.Errorf("%d token requests, want 320", n)
		}
		f.noneTwice(true)
	})
	t.Run("kind not known", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways})
		if failed := f.together(32, 10); failed != 0 {
			t.Errorf("%d requests failed", failed)
		}
		if n, refused := f.server.Count(transporttest.Token), f.server.Refused(); n != 320+refused {
			t.Errorf("%d token requests with %d refusals", n, refused)
		}
		f.noneTwice(false)
	})
	t.Run("no endpoint", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true})
		if failed := f.together(32, 10); failed != 0 {
			t.Errorf("%d requests failed", failed)
		}
		f.noneTwice(false)
	})
}

// hold makes the server wait with its answers to token requests, which it has
// judged by then: each channel that is received is such a request, and closing
// it lets the answer go.
func (f *fixture) hold() <-chan chan struct{} {
	judged := make(chan chan struct{})
	f.server.Set(func(p *policy) {
		p.After = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token {
				answer := make(chan struct{})
				judged <- answer
				<-answer
			}
		}
	})
	return judged
}

// start begins a token request; its error, or nil for a 200, is sent once it has
// ended.
func (f *fixture) start(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	go func() {
		resp, err := f.RoundTrip(f.request(ctx))
		if err == nil {
			read(f.t, resp)
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		ended <- err
	}()
	return ended
}

// TestKindLearntWhileChallengesAreOut: what was given out before the server's
// kind was known must not be given out again after.
func TestKindLearntWhileChallengesAreOut(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways})
	f.inProcess()
	judged := f.hold()
	endA := f.start(t.Context()) // takes the fetched challenge
	a := <-judged
	endB := f.start(t.Context()) // takes the same, and is refused
	b := <-judged
	close(a) // its answer brings another challenge
	errA := <-endA
	endC := f.start(t.Context()) // takes that, and uses it up
	c := <-judged
	close(b)                     // so B learns the server's kind, and sends again
	b = <-judged                 // that
	endD := f.start(t.Context()) // must not take what C has
	d := <-judged
	f.server.Set(func(p *policy) { p.After = nil })
	close(b)
	close(c)
	close(d)
	for _, err := range []error{errA, <-endB, <-endC, <-endD} {
		if err != nil {
			t.Error(err)
		}
	}
	if n := f.server.Refused(); n != 1 {
		t.Errorf("%d PoPs refused, want B's alone; the server saw:\n%s", n, f.history())
	}
}

// TestRetrysChallengeIsItsOwn: nobody else uses up the challenge of an error
// before the one retry that it is for.
func TestRetrysChallengeIsItsOwn(t *testing.T) {
	for name, p := range map[string]policy{
		"endpoint":    {Kind: transporttest.SingleUse},
		"no endpoint": {Kind: transporttest.SingleUse, NoEndpoint: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, p)
			f.token(http.StatusOK)
			gate := f.server.Gate()
			refused := false
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Token && refused {
						f.server.Set(func(p *policy) { p.Before = nil })
						gate.Hold(r)
					}
					refused = refused || r.Endpoint == transporttest.Token
				}
			})
			end := f.start(t.Context()) // is refused, and its retry held
			retry := gate.Arrived()
			f.token(http.StatusOK)
			gate.Open()
			if err := <-end; err != nil {
				t.Errorf("%v; the server saw:\n%s", err, f.history())
			}
			uses := 0
			for _, sent := range f.sent() {
				if sent == retry.PoP.Challenge {
					uses++
				}
			}
			if uses != 1 {
				t.Errorf("the challenge of the error was sent %d times; the server saw:\n%s", uses, f.history())
			}
		})
	}
}

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
		step  string
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
			c.Attestations = sourceFunc(func(ctx context.Context, rejected string) (string, error) {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-let:
					return source.Attestation(ctx, rejected)
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

// TestIatIsOfTheSignature: who has waited for the key makes claims then, not
// before.
func TestIatIsOfTheSignature(t *testing.T) {
	f := newFixture(t, policy{})
	synctest.Test(t, func(t *testing.T) {
		key := newStuckKey(f.key)
		f.inProcess(func(c *transport.Config) { c.Key = key })
		first := f.start(t.Context())
		synctest.Wait()
		second := f.start(t.Context())
		synctest.Wait()
		if n := len(key.entered); n != 1 {
			t.Errorf("%d signatures at once, want 1", n)
		}
		f.clock.advance(10 * time.Second)
		now := f.clock.Now().Unix()
		close(key.let)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		issued := make(map[int64]bool)
		for _, r := range f.server.Requests(transporttest.Token) {
			issued[r.PoP.IssuedAt] = true
		}
		if !issued[now] || !issued[now-10] {
			t.Errorf("iat %v, want %d and %d", issued, now-10, now)
		}
	})
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

// TestEverythingAtOnce: contract line 13, for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.SingleUse} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			f := newFixture(t, policy{Kind: kind, Offer: transporttest.OfferAlways, RefuseEvery: 7, Window: time.Hour})
			f.server.Attester.Lifetime = time.Minute // an attestation expires midway
			var seen atomic.Int64
			f.server.Set(func(p *policy) {
				p.Before = func(transporttest.Request) {
					if seen.Add(1)%40 == 0 {
						f.server.Rotate()
						f.clock.advance(15 * time.Second)
					}
				}
			})
			var callers sync.WaitGroup
			for g := range 64 {
				callers.Go(func() {
					for i := range 5 {
						ctx, cancel := context.WithCancel(t.Context())
						if (g+i)%9 == 0 {
							cancel()
						}
						resp, err := f.RoundTrip(f.request(ctx))
						if err == nil {
							read(t, resp)
						} else if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
						cancel()
					}
				})
			}
			callers.Wait()
			f.noneTwice(false)
			requests := f.server.Requests(transporttest.Token)
			attestations := make(map[string]bool)
			for _, r := range requests {
				attestations[r.Attestation()] = true
				// An attestation may expire on its way.
				if r.Code != "" && r.Code != "use_attestation_challenge" && !strings.Contains(r.Reason, "expired") {
					t.Errorf("%s: %s", r.Code, r.Reason)
				}
			}
			if len(attestations) < 2 {
				t.Error("no attestation expired midway")
			}
			if len(requests) < 250 || len(requests) > 2*64*5 {
				t.Errorf("%d sends", len(requests))
			}
		})
	}
}
