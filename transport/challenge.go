package transport

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// singleUseWindow is how young a challenge must be for its refusal to say
	// that the server takes each challenge only once. Servers that let challenges
	// grow old give them minutes.
	singleUseWindow = time.Minute

	// maxSpares bounds how many challenges of a single-use server are kept for
	// the requests to come: as many as may be under way at a time.
	maxSpares = 32
)

// challenges is what is known of one server's challenges toward one key.
//
// The draft leaves lifetime and reuse to the server and gives the client no
// way to ask (section "Challenges"). So the kind of server is learnt: challenges
// are shared and reused, which costs nothing at most servers, until the server
// refuses a young one that it had been sent before. From then on it counts as
// single-use: no challenge is given to two requests, and those that come with
// responses are kept until they are needed. One that was accepted twice proves the
// contrary, also when the answer comes late; a refusal then tells of a rotation or a
// restart, and of nothing else.
type challenges struct {
	closed context.Context // of the Transport
	now    func() time.Time
	fetch  func(context.Context) (string, error) // nil: the server has no challenge endpoint
	// nonce says that these are DPoP nonces, which servers change whenever they
	// like. None is fetched for one request alone: a refusal costs no more.
	nonce bool

	flight singleflight.Group

	mu        sync.Mutex
	received  int          // how many challenges have been received
	ready     []*challenge // those that may be given out, the most recently received one last; one at the most until singleUse
	fallback  *challenge   // the last one of those given out, for when there is no endpoint to ask
	singleUse bool
	reusable  bool // one was accepted twice, so that the server cannot be of single use
	barren    bool // the endpoint has no challenges to give; or, of nonces, did not answer
}

// A challenge is one value received from the server.
type challenge struct {
	value    string
	number   int // in the order of receipt; a clock may be set back
	received time.Time
	// Guarded by challenges.mu.
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
// they are young. c.mu is held.
func (c *challenges) next() *challenge {
	for len(c.ready) > 1 && !c.young(c.ready[0]) {
		c.ready = slices.Delete(c.ready, 0, 1)
	}
	if len(c.ready) == 0 {
		return nil
	}
	return c.ready[len(c.ready)-1]
}

func (c *challenges) young(ch *challenge) bool {
	age := c.now().Sub(ch.received)
	return age >= 0 && age < singleUseWindow
}

// give counts one use of ch. c.mu is held.
func (c *challenges) give(ch *challenge) use {
	ch.sends++
	c.givenOut(ch)
	if c.singleUse {
		c.drop(func(r *challenge) bool { return r == ch })
	}
	return use{ch, ch.sends > 1}
}

func (c *challenges) givenOut(ch *challenge) {
	if c.fallback == nil || c.fallback.number < ch.number {
		c.fallback = ch
	}
}

// add makes ch the one to be given out next. c.mu is held.
func (c *challenges) add(ch *challenge) {
	if !c.singleUse {
		c.ready = c.ready[:0]
	}
	if len(c.ready) == maxSpares {
		c.ready = slices.Delete(c.ready, 0, 1)
	}
	c.ready = append(c.ready, ch)
}

func (c *challenges) drop(which func(*challenge) bool) {
	c.ready = slices.DeleteFunc(c.ready, which)
}

// fetched remembers a challenge that the endpoint gave, or that it has none.
func (c *challenges) fetched(value string) *challenge {
	if value == "" {
		c.mu.Lock()
		c.barren = true
		c.mu.Unlock()
	}
	return c.store(value)
}

// store remembers a challenge that came with a response as the most recently
// received one. An empty value, for a response without one, changes nothing.
func (c *challenges) store(value string) *challenge {
	if value == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range append([]*challenge{c.fallback}, c.ready...) {
		if known == nil || known.value != value {
			continue
		}
		// Servers repeat a challenge while it is good. It is still the same
		// one: when it came first and how often it was sent must not be
		// forgotten.
		if !c.singleUse {
			c.add(known)
		}
		return known
	}
	ch := c.receive(value)
	c.add(ch)
	return ch
}

// reserve makes a challenge for one request alone: others do not see it unless
// it is shared later.
func (c *challenges) reserve(value string) use {
	if value == "" {
		return use{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.receive(value)
	ch.sends = 1
	return use{challenge: ch}
}

// receive makes a challenge of a value that has just come. c.mu is held.
func (c *challenges) receive(value string) *challenge {
	c.received++
	return &challenge{value: value, number: c.received, received: c.now()}
}

// share gives the others a reserved challenge once its own request is through:
// the server has accepted it, or has perhaps not seen it.
func (c *challenges) share(u use, accepted bool) {
	if u.challenge == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.next()
	if next != nil && next != u.challenge && next.value == u.challenge.value {
		// Two refusals at once offered the same one.
		next.sends++
		u.challenge = next
	}
	if accepted {
		if u.accepted++; u.accepted >= 2 {
			c.reusable, c.singleUse = true, false
		}
	}
	c.givenOut(u.challenge)
	if c.singleUse || u.refused {
		return
	}
	if next == nil || next.number < u.number {
		c.add(u.challenge)
	}
}

// answered takes note of what the server makes of a challenge that was sent.
func (c *challenges) answered(u use, refused, accepted bool) {
	if refused {
		c.refused(u)
	} else {
		c.share(u, accepted)
	}
}

// refused forgets a challenge that the server has refused, and learns from it.
func (c *challenges) refused(u use) {
	if u.challenge == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u.refused = true
	if u.reused && !c.reusable && c.young(u.challenge) {
		c.singleUse = true
	}
	c.drop(func(ch *challenge) bool { return ch == u.challenge || c.singleUse && ch.sends > 0 })
}
