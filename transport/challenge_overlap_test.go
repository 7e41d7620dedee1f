// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// begin makes a token request on another goroutine. The result says whether it
// succeeded.
func (f *fixture) begin() <-chan bool {
	done := make(chan bool, 1)
	req := f.request(f.t.Context())
	go func() {
		resp, err := f.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err == nil && resp.StatusCode == http.StatusOK
	}()
	return done
}

// TestRefusedChallengeStaysAway: a challenge that was refused is not given out again
// because an older request with it succeeds only then.
func TestRefusedChallengeStaysAway(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.token(http.StatusOK) // so that it counts as reusable
	judged, answer := make(chan struct{}), make(chan struct{})
	f.server.Set(func(p *policy) { p.After = func(transporttest.Request) { close(judged); <-answer } })
	slow := f.begin()
	<-judged
	f.server.Rotate()
	var arrived atomic.Int64
	retried, retry := make(chan struct{}), make(chan struct{})
	f.server.Set(func(p *policy) {
		p.After = nil
		p.Before = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token && arrived.Add(1) == 2 {
				close(retried)
				<-retry
			}
		}
	})
	refused := f.begin()
	<-retried
	close(answer)
	if !<-slow {
		t.Error("the slow request failed")
	}
	f.token(http.StatusOK)
	if n := f.server.Refused(); n != 1 {
		t.Errorf("%d refusals, want 1; the server saw:\n%s", n, f.history())
	}
	close(retry)
	if !<-refused {
		t.Error("the refused request failed")
	}
}

// TestOneChallengeOfTwoRefusals: two requests are refused at once and offered the
// same challenge. Both have it accepted, which tells that it can be used again, so
// that its refusal later does not tell the contrary.
func TestOneChallengeOfTwoRefusals(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.token(http.StatusOK) // so that it counts as reusable
	var arrived atomic.Int64
	both := make(chan struct{})
	f.server.Set(func(p *policy) {
		p.Before = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token && arrived.Add(1) == 2 {
				f.server.Rotate()
				close(both)
			}
			<-both
		}
	})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if !<-f.begin() {
				t.Error("a request failed")
			}
		})
	}
	wg.Wait()
	f.server.Set(func(p *policy) { p.Before = nil })
	if n := f.server.Refused(); n != 2 {
		t.Fatalf("%d refusals, want 2; the server saw:\n%s", n, f.history())
	}
	f.server.Rotate()
	f.token(http.StatusOK) // refused, then accepted
	f.server.Forget()
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	f.counts(2, 0) // as with challenges that may be used again
}
