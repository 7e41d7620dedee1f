// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

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
