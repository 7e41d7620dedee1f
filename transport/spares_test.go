// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// stock makes a server known for single use, and has n requests under way at
// once, whose responses each bring a challenge.
func (f *fixture) stock(n int) {
	f.t.Helper()
	f.token(http.StatusOK)
	f.token(http.StatusOK) // refused first
	if refused := f.server.Refused(); refused == 0 {
		f.t.Fatal("no refusal has taught the kind")
	}
	var arrived atomic.Int64
	all := make(chan struct{})
	f.server.Set(func(p *policy) {
		p.Offer = transporttest.OfferAlways
		p.Before = func(r transporttest.Request) {
			if r.Endpoint != transporttest.Token {
				return
			}
			if arrived.Add(1) == int64(n) {
				close(all)
			}
			<-all
		}
	})
	if failed := f.together(n, 1); failed != 0 {
		f.t.Fatalf("%d requests failed", failed)
	}
	f.server.Set(func(p *policy) { p.Before = nil })
	f.server.Forget()
}

// TestSparesServeTheRequestsToCome: a single-use server that gives a challenge
// with each response is asked for none, and refuses none, however the requests
// overlap.
func TestSparesServeTheRequestsToCome(t *testing.T) {
	for name, p := range map[string]policy{
		"endpoint":    {Kind: transporttest.SingleUse},
		"no endpoint": {Kind: transporttest.SingleUse, NoEndpoint: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, p)
			f.stock(32)
			if failed := f.together(32, 10); failed != 0 {
				t.Errorf("%d requests failed", failed)
			}
			f.counts(320, 0)
			if n := f.server.Refused(); n != 0 {
				t.Errorf("%d PoPs refused", n)
			}
			f.noneTwice(true)
		})
	}
}

// TestSparesAreFewAndYoung, but for the most recent one (C26), and the newest is
// sent first.
func TestSparesAreFewAndYoung(t *testing.T) {
	for _, test := range []struct {
		name  string
		stock int
		age   time.Duration
		good  int // requests that need no fetch
	}{
		{"young", 20, 59 * time.Second, 20},
		{"old", 20, 61 * time.Second, 1},
		{"many", 40, 0, 32},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse})
			f.stock(test.stock)
			f.clock.advance(test.age)
			f.server.Set(func(p *policy) { p.Offer = transporttest.OfferInErrors })
			for range 45 {
				f.token(http.StatusOK)
			}
			f.counts(45, 45-test.good)
			f.noneTwice(true)
		})
	}
	t.Run("newest first", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.stock(5)
		f.token(http.StatusOK)
		f.token(http.StatusOK)
		requests := f.server.Requests(transporttest.Token)
		if requests[1].PoP.Challenge != requests[0].Offered() {
			t.Errorf("sent %q, want the last one offered, %q", requests[1].PoP.Challenge, requests[0].Offered())
		}
	})
}

// TestSpareThatComesTwice: a challenge that two responses bring is still sent
// once.
func TestSpareThatComesTwice(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse})
	f.stock(2)
	var arrived sync.WaitGroup
	arrived.Add(2)
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint == transporttest.Token {
				arrived.Done()
				arrived.Wait()
				w.Header().Set(transport.HeaderChallenge, "the same")
			}
			return r.Endpoint == transporttest.Token
		}
	})
	f.together(2, 1)
	f.server.Set(func(p *policy) {
		p.Intercept = func(_ http.ResponseWriter, r transporttest.Request) bool { return r.Endpoint == transporttest.Token }
	})
	f.server.Forget()
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	if sent := f.sent(); sent[0] != "the same" || sent[1] == "the same" {
		t.Errorf("sent %q", sent)
	}
	f.counts(2, 1)
}
