// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// newTestPool makes a pool whose endpoint gives "1", "2" and so on, and whose clock stands
// still.
func newTestPool(t *testing.T) *pool {
	now := time.Unix(1e9, 0)
	p := newPool(t.Context(), func() time.Time { return now })
	given := 0
	p.setFetch("https://as.example.com/challenge", func(context.Context) (string, error) {
		given++
		return strconv.Itoa(given), nil
	})
	return p
}

// TestLessonCostsOneRequest: of those that come at the same time to a server that takes
// each challenge once, one alone tries whether that is still so.
func TestLessonCostsOneRequest(t *testing.T) {
	p := newTestPool(t)
	p.singleUse = true
	first, err := p.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.answered(first, false, true)
	again := 0
	for range 5 { // none is answered yet
		u, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if u.value() == first.value() {
			again++
		}
	}
	if again != 1 {
		t.Errorf("%d of 5 requests were given what the server has taken already, want 1", again)
	}
}

// TestOwnChallengeWasSent: a challenge that was fetched for one request was sent by it. If
// the server refuses it to the next, it takes each challenge once.
func TestOwnChallengeWasSent(t *testing.T) {
	p := newTestPool(t)
	own, err := p.takeUnused(t.Context())
	if err != nil || own.reused {
		t.Fatalf("%+v, %v", own, err)
	}
	p.answered(own, false, true)
	next, err := p.take(t.Context())
	if err != nil || next.value() != own.value() || !next.reused {
		t.Fatalf("%q is given, as reused: %t, %v; want %q, which is", next.value(), next.reused, err, own.value())
	}
	p.answered(next, true, false)
	if !p.singleUse {
		t.Error("the server's refusal of what it had taken teaches nothing")
	}
}

// TestLastSeenIsNewest: without an endpoint the challenge that was received last is the one
// to fall back on, in whatever order those at hand were given out.
func TestLastSeenIsNewest(t *testing.T) {
	p := newTestPool(t)
	p.fetch, p.singleUse = nil, true
	p.store("older")
	p.store("newer")
	for _, want := range []string{"newer", "older", "newer", "newer"} {
		if u, err := p.take(t.Context()); err != nil || u.value() != want {
			t.Errorf("%q, %v, want %q", u.value(), err, want)
		}
	}
}
