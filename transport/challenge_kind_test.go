// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC28KindIsLearnt: which refusals make a server count as single-use. It
// shows in whether an accepted challenge is used again.
func TestC28KindIsLearnt(t *testing.T) {
	tests := []struct {
		name      string
		age       time.Duration // of the challenge when it is refused
		accepted  int           // how often it had been, before
		singleUse bool
	}{
		{"reused and young", 59 * time.Second, 1, true},
		{"reused and old", 61 * time.Second, 1, false},
		{"accepted twice and young", 0, 2, false}, // the server was started anew
		{"first use", 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{})
			for range test.accepted {
				f.token(http.StatusOK)
			}
			f.clock.advance(test.age)
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Token {
						f.server.Rotate()
						f.server.Set(func(p *policy) { p.Before = nil })
					}
				}
			})
			f.token(http.StatusOK) // refused, then accepted
			if n := f.server.Refused(); n != 1 {
				t.Fatalf("%d refusals; the server saw:\n%s", n, f.history())
			}
			f.server.Forget()
			f.token(http.StatusOK)
			want := 0
			if test.singleUse {
				want = 1
			}
			f.counts(1, want)
		})
	}
	t.Run("answered, but not with success", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.server.Set(func(p *policy) { p.Intercept = unavailable })
		for range 3 {
			f.token(http.StatusServiceUnavailable)
		}
		f.server.Set(func(p *policy) { p.Intercept = nil })
		f.token(http.StatusOK)
		f.token(http.StatusOK) // refused, then accepted
		f.server.Forget()
		f.token(http.StatusOK)
		f.counts(1, 1)
	})
}

// unavailable answers token requests without having looked at them.
func unavailable(w http.ResponseWriter, r transporttest.Request) bool {
	if r.Endpoint != transporttest.Token {
		return false
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// TestEveryNthRefused: a server that refuses good challenges now and then costs
// one more send each time, and no request fails.
func TestEveryNthRefused(t *testing.T) {
	f := newFixture(t, policy{RefuseEvery: 4, Offer: transporttest.OfferAlways})
	for range 20 {
		f.token(http.StatusOK)
	}
	if n, refused := f.server.Count(transporttest.Token), f.server.Refused(); n != 20+refused || refused < 5 {
		t.Errorf("%d sends, %d refusals", n, refused)
	}
	ids := make(map[string]bool)
	for _, r := range f.server.Requests(transporttest.Token) {
		ids[r.PoP.ID] = true
	}
	if len(ids) != f.server.Count(transporttest.Token) {
		t.Errorf("%d different jti", len(ids))
	}
}

// TestSingleUseSequential: no challenge is sent twice, and none refused, once a
// refusal has shown the kind.
func TestSingleUseSequential(t *testing.T) {
	for _, offer := range []transporttest.Offer{transporttest.OfferInErrors, transporttest.OfferAlways} {
		t.Run(fmt.Sprint(offer), func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse})
			f.token(http.StatusOK)
			f.token(http.StatusOK) // is refused first
			if n := f.server.Refused(); n != 1 {
				t.Fatalf("%d refusals", n)
			}
			f.server.Set(func(p *policy) { p.Offer = offer })
			f.server.Forget()
			for range 10 {
				f.token(http.StatusOK)
			}
			if n := f.server.Refused(); n != 0 {
				t.Errorf("%d refusals", n)
			}
			fetches := 10
			if offer == transporttest.OfferAlways {
				fetches = 1
			}
			f.counts(10, fetches)
			sent := f.sent()
			slices.Sort(sent)
			if len(slices.Compact(sent)) != 10 {
				t.Error("a challenge was sent twice")
			}
		})
	}
}

// TestTwoRestarts: a server whose challenges were used again is not taken for
// another kind by losing them twice.
func TestTwoRestarts(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	for range 2 {
		f.server.Rotate()
		f.token(http.StatusOK) // refused, then accepted
	}
	f.server.Forget()
	for range 5 {
		f.token(http.StatusOK)
	}
	f.counts(5, 0)
}

// TestProofComesLate: a server is taken for single-use by a refusal, until the
// answers to requests that were under way tell the contrary.
func TestProofComesLate(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	judged, answer := make(chan struct{}, 2), make(chan struct{})
	f.server.Set(func(p *policy) { p.After = func(transporttest.Request) { judged <- struct{}{}; <-answer } })
	slow := []<-chan bool{f.begin(), f.begin()}
	<-judged
	<-judged
	f.server.Set(func(p *policy) { p.After = nil })
	f.server.Rotate()
	f.token(http.StatusOK) // refused, then accepted
	close(answer)
	for _, done := range slow {
		if !<-done {
			t.Error("a slow request failed")
		}
	}
	f.token(http.StatusOK) // which has a challenge again, at the latest
	f.server.Forget()
	for range 5 {
		f.token(http.StatusOK)
	}
	f.counts(5, 0)
}
