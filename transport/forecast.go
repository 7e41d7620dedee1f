// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// settling is how long after a response the next proof is begun. A request that follows
// at once, with the token that has just come for example, has the key first.
const settling = 10 * time.Millisecond

// mostWrong is how many requests in a row go elsewhere than was thought before what is
// signed ahead for one of many in no order waits for that one. To throw it away each time
// would bring no more.
const mostWrong = 2

// A forecast says for which server or resource the next proofs are signed ahead. It is for
// one at a time: when requests cease, what was signed for the next one is in vain, and
// that is to be no more than one request needs.
type forecast struct {
	mu      sync.Mutex
	last    *audience // of the most recent request
	when    time.Time // of that
	next    *audience // where the one after it was thought to go
	wrong   int       // how many in a row went elsewhere
	chosen  *audience // whose proofs the responses since have begun; nil: none has come
	due     *audience // whose proofs are about to be begun; nil: nobody's
	pending bool      // due is looked at soon
	held    *audience // whose proofs were begun last
}

// expect notes that a request has come that can use proofs which are signed ahead. Those
// for others are thrown away, unless they are for the request after this one.
func (t *Transport) expect(ctx context.Context, to *audience) {
	if _, inBackground := keystore.Background(ctx); inBackground {
		return
	}
	f := t.forecast
	f.mu.Lock()
	now := time.Now()
	if f.last != nil && now.Sub(f.when) <= t.signAhead {
		f.last.stock.observe(to)
		if f.wrong++; to == f.next {
			f.wrong = 0
		}
	}
	f.last, f.when, f.next, f.chosen = to, now, to.nextAudience(), nil
	isWrong := func(a *audience) bool { return a != nil && a != to && a != f.next && f.wrong < mostWrong }
	if isWrong(f.due) {
		f.due = nil
	}
	wrong := f.held
	if !isWrong(wrong) {
		wrong = nil
	}
	f.mu.Unlock()
	t.withdraw(ctx, wrong)
}

// foresee has the proofs for the next request signed in the background, as this one and
// its response let expect it. A DPoP proof for a resource is made if the request before was
// for the same. Nobody waits for a request in the background, nor for another one like it.
func (t *Transport) foresee(req *http.Request, to *route, a attempt, resp *http.Response, refused refusal) {
	demands := t.demands(req, to, a)
	if len(demands) == 0 || resp.StatusCode >= 500 || refused.code == codeInvalidAttestation || refused.code == codeInvalidClient {
		return
	}
	if _, inBackground := keystore.Background(req.Context()); inBackground {
		return
	}
	to.stock.note(demands, to.isResource)
	f := t.forecast
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != to.audience {
		return // the one that has come since sees to the rest
	}
	f.when = time.Now()
	if f.wrong >= mostWrong && (f.due != nil || f.held != nil && f.held.stock.holds()) {
		return
	}
	if f.chosen == nil {
		f.chosen = to.nextAudience()
	}
	f.due = f.chosen
	if !f.pending {
		f.pending = true
		time.AfterFunc(settling, t.provide)
	}
}

// provide signs the proofs that are due. There is one call at a time.
func (t *Transport) provide() {
	f := t.forecast
	f.mu.Lock()
	to, before := f.due, f.held
	f.due = nil
	if to != nil {
		f.held = to
	}
	f.mu.Unlock()
	defer func() { // also if the key, or the clock, ends the goroutine
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.pending = f.due != nil; f.pending {
			time.AfterFunc(settling, t.provide)
		}
	}()
	if to == nil {
		return
	}
	if before != to {
		t.withdraw(t.closed, before)
	}
	for _, d := range to.stock.wanted() {
		if f.isOn(to) {
			t.restock(to, d)
		}
	}
}

// isOn reports whether nobody else's proofs are due by now.
func (f *forecast) isOn(to *audience) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held == to && (f.due == nil || f.due == to)
}

// withdraw throws away what was signed ahead for an audience that the next request is not
// for, but not what a caller of Prepare has asked for. a may be nil.
func (t *Transport) withdraw(ctx context.Context, a *audience) {
	if a == nil {
		return
	}
	for _, p := range a.stock.withdraw() {
		t.throwAway(ctx, a, p, errElsewhere, afterwards(ctx))
	}
}

// nextAudience returns where the request after one of a goes to, as far as is known, and
// as far as what is known of that one is not of before the attestation was renewed.
func (a *audience) nextAudience() *audience {
	_, attestation, next := a.stock.known()
	if next == nil {
		return a
	}
	ended, other, _ := next.stock.known()
	if ended || attestation != other && attestation != "" && other != "" {
		return a
	}
	return next
}

// known returns what the most recent request went beside, "" if it had none, and where the
// one after it is thought to go.
func (s *stock) known() (ended bool, attestation string, follower *audience) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) > 0 {
		attestation = s.next[0].attestation
	}
	return s.ended, attestation, s.follower
}

// observe notes where the request after one of these went to. What was right before has to
// be wrong twice in a row to be forgotten: a token is fetched among many calls of a
// resource.
func (s *stock) observe(follower *audience) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
	case s.follower == follower:
		s.doubted = false
	case s.follower == nil || s.doubted:
		s.follower, s.doubted = follower, false
	default:
		s.doubted = true
	}
}

// note keeps what another request like the one that has had these demands will need.
func (s *stock) note(demands []demand, isResource bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = nil
	for _, d := range demands {
		if d.typ == typePoP || !isResource || d.target == s.last {
			s.next = append(s.next, d)
		}
		if d.typ == typeDPoP {
			s.last = d.target
		}
	}
}

// wanted returns what is signed ahead now. A second proof is once requests follow one
// another so soon that the first one was of use.
func (s *stock) wanted() []demand {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) > 1 && !s.paced {
		return s.next[:1]
	}
	return s.next
}

// followed notes whether a proof that was signed ahead was sent.
func (s *stock) followed(sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paced = sent
}
