// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

const (
	// singleUseWindow is how young a challenge must be for its refusal to say
	// that the server takes each challenge only once. Servers that let challenges
	// grow old give them minutes.
	singleUseWindow = time.Minute

	// singleUseLesson is how long a server counts as single-use before that is put
	// to the test again: it may have been a bad day of the server's.
	singleUseLesson = time.Hour

	// readBefore is how long before mu was locked the clock may have been read. What
	// another request has put down meanwhile is not of the future.
	readBefore = 10 * time.Second

	// maxSpares bounds how many challenges of a single-use server are kept for
	// the requests to come: as many as may be under way at a time.
	maxSpares = 32
)

// pool holds what is known of one audience's challenges, or DPoP nonces, toward
// one key.
//
// The draft leaves lifetime and reuse to the server and gives the client no
// way to ask (section "Challenges"). So the kind of server is learnt: challenges
// are shared and reused, which costs nothing at most servers, until the server
// refuses a young one that it had been sent before. From then on it counts as
// single-use: no challenge is given to two requests, and those that come with
// responses are kept until they are needed. One that was accepted twice proves the
// contrary, also when the answer comes late; a refusal then tells of a rotation or a
// restart, and of nothing else.
//
// The clock may be the program's own, so that it is read before mu is locked.
type pool struct {
	life     context.Context // of the Transport
	clock    func() time.Time
	optional bool                                  // a request can do without: none is fetched for one request alone
	fetch    func(context.Context) (string, error) // nil: the server has no challenge endpoint

	flight *flight.Group[*challenge]

	mu        sync.Mutex
	received  int          // how many challenges have been received
	ready     []*challenge // those that may be given out, the most recently received one last; one at the most until singleUse
	fallback  *challenge   // the last one of those given out, for when there is no endpoint to ask
	proven    *challenge   // the last one of those accepted
	singleUse bool
	lesson    pause // since singleUse was last put to the test
	reusable  bool  // one was accepted twice, so that the server cannot be of single use
	barren    pause // the endpoint had none to give, or, of nonces, did not answer
}

// A challenge is one value received from the server.
type challenge struct {
	value    string
	number   int // in the order of receipt; a clock may be set back
	received time.Time
	// Guarded by pool.mu.
	sends    int  // how often it was given out
	accepted int  // how often the server has answered with success
	refused  bool // by the server: not to be given out again
}

// use is one giving-out of a challenge. The zero use is a request that goes
// out without any.
type use struct {
	*challenge
	reused bool // it had been given out before
}

// value returns what goes into the PoP's claim; "" leaves the claim out.
func (u use) value() string {
	if u.challenge == nil {
		return ""
	}
	return u.challenge.value
}

// next returns the one of those at hand that is to be given out, nil if there is
// none: the most recently received one, however old; those before it only while
// they are young. p.mu is held.
func (p *pool) next(now time.Time) *challenge {
	for len(p.ready) > 1 && !p.ready[0].young(now) {
		p.ready = slices.Delete(p.ready, 0, 1)
	}
	if len(p.ready) == 0 {
		return nil
	}
	return p.ready[len(p.ready)-1]
}

func (c *challenge) young(now time.Time) bool {
	age := now.Sub(c.received)
	return -readBefore < age && age < singleUseWindow
}

// give counts one use of c. p.mu is held.
func (p *pool) give(c *challenge) use {
	c.sends++
	p.givenOut(c)
	if p.singleUse {
		p.drop(func(r *challenge) bool { return r == c })
	}
	return use{c, c.sends > 1}
}

func (p *pool) givenOut(c *challenge) {
	if p.fallback == nil || p.fallback.number < c.number {
		p.fallback = c
	}
}

// add makes c the one to be given out next. p.mu is held.
func (p *pool) add(c *challenge) {
	if !p.singleUse {
		p.ready = p.ready[:0]
	}
	if len(p.ready) == maxSpares {
		p.ready = slices.Delete(p.ready, 0, 1)
	}
	p.ready = append(p.ready, c)
}

func (p *pool) drop(which func(*challenge) bool) {
	p.ready = slices.DeleteFunc(p.ready, which)
}

// store remembers a challenge that came with a response as the most recently
// received one. An empty value, for a response without one, changes nothing.
func (p *pool) store(value string) *challenge {
	if value == "" {
		return nil
	}
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range append([]*challenge{p.fallback}, p.ready...) {
		if known == nil || known.value != value {
			continue
		}
		// Servers repeat a challenge while it is good. It is still the same
		// one: when it came first and how often it was sent must not be
		// forgotten.
		if !p.singleUse {
			p.add(known)
		}
		return known
	}
	c := p.receive(value, now)
	p.add(c)
	return c
}

// reserve makes a challenge for one request alone: others do not see it unless
// it is shared later.
func (p *pool) reserve(value string) use {
	if value == "" {
		return use{}
	}
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.receive(value, now)
	c.sends = 1
	return use{challenge: c}
}

// receive makes a challenge of a value that has just come. p.mu is held.
func (p *pool) receive(value string, now time.Time) *challenge {
	p.received++
	return &challenge{value: value, number: p.received, received: now}
}

// answered takes note of what the server makes of a challenge that was sent.
func (p *pool) answered(u use, refused, accepted bool) {
	if u.challenge == nil {
		return
	}
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if refused {
		p.refused(u, now)
		return
	}
	next := p.next(now)
	if next != nil && next != u.challenge && next.value == u.challenge.value {
		// Two refusals at once offered the same one.
		next.sends++
		u.challenge = next
	}
	if accepted {
		p.proven = u.challenge
		if u.accepted++; u.accepted >= 2 {
			p.reusable, p.singleUse = true, false
		}
	}
	// The others may have one that was for one request alone, now that this is
	// through: the server has accepted it, or has perhaps not seen it.
	p.givenOut(u.challenge)
	if p.singleUse || u.refused {
		return
	}
	if next == nil || next.number < u.number {
		p.add(u.challenge)
	}
}

// refused forgets a challenge that the server has refused, and learns from it. p.mu is
// held.
func (p *pool) refused(u use, now time.Time) {
	u.refused = true
	if u.reused && !p.reusable && u.young(now) {
		p.singleUse, p.lesson = true, pause{now, singleUseLesson}
	}
	if p.proven == u.challenge {
		p.proven = nil
	}
	p.drop(func(c *challenge) bool { return c == u.challenge || p.singleUse && c.sends > 0 })
}

// A pause is a time during which something is left alone. The zero pause is over.
type pause struct {
	from   time.Time
	length time.Duration
}

// holds reports whether it is not over. One that begins later than now counts as
// over: the clock was set back.
func (p pause) holds(now time.Time) bool {
	age := now.Sub(p.from)
	return -readBefore < age && age < p.length
}
