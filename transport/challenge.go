package transport

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// singleUseWindow is how young a challenge must be for its refusal to say that
// the server takes each challenge only once. Servers that let challenges grow
// old give them minutes.
const singleUseWindow = time.Minute

// challenges is what is known of one server's challenges toward one key.
//
// The draft leaves lifetime and reuse to the server and gives the client no
// way to ask (section "Challenges"). So the kind of server is learnt: challenges
// are shared and reused, which costs nothing at most servers, until the server
// refuses a young one that it had been sent before. From then on it counts as
// single-use: no challenge is given to two requests.
type challenges struct {
	now   func() time.Time
	fetch func(context.Context) (string, error) // nil: the server has no challenge endpoint

	flight singleflight.Group

	mu        sync.Mutex
	received  int        // how many challenges have been received
	latest    *challenge // the most recently received one that may be given out; nil if there is none
	fallback  *challenge // the last one given out, for when there is no endpoint to ask
	singleUse bool
	barren    bool // the endpoint answers, but has no challenges to give
}

// A challenge is one value received from the server.
type challenge struct {
	value    string
	number   int // in the order of receipt; a clock may be set back
	received time.Time
	sends    int // how often it was given out; guarded by challenges.mu
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

// take returns the challenge for the next PoP: the most recently received one,
// else one from the challenge endpoint, else, if the server has no endpoint,
// the last one seen, else none. It waits for the network at most, and ends with
// ctx.
func (c *challenges) take(ctx context.Context) (use, error) {
	c.mu.Lock()
	if c.latest != nil {
		defer c.mu.Unlock()
		return c.give(c.latest), nil
	}
	if c.fetch == nil || c.barren {
		defer c.mu.Unlock()
		if c.fallback == nil {
			return use{}, nil
		}
		return c.give(c.fallback), nil
	}
	singleUse := c.singleUse
	c.mu.Unlock()

	if singleUse {
		value, err := c.fetch(ctx)
		return c.reserve(value), err
	}
	ch, err := c.fetchShared(ctx)
	if err != nil || ch == nil {
		return use{}, err
	}
	c.mu.Lock()
	if c.singleUse && ch.sends > 0 {
		// Another waiter has it, and meanwhile we know that it is good for one
		// only.
		c.mu.Unlock()
		return c.take(ctx)
	}
	defer c.mu.Unlock()
	return c.give(ch), nil
}

// give counts one use of ch. c.mu is held.
func (c *challenges) give(ch *challenge) use {
	ch.sends++
	c.fallback = ch
	if c.singleUse {
		c.latest = nil
	}
	return use{ch, ch.sends > 1}
}

// fetchShared asks the endpoint, with one request in flight for all who wait.
// The result is nil if the endpoint has no challenges to give.
func (c *challenges) fetchShared(ctx context.Context) (*challenge, error) {
	return shared(ctx, &c.flight, func(ctx context.Context) (*challenge, error) {
		c.mu.Lock()
		latest := c.latest
		c.mu.Unlock()
		if latest != nil {
			return latest, nil // another caller's fetch was just before ours
		}
		value, err := c.fetch(ctx)
		if err != nil {
			return nil, err
		}
		if value == "" {
			c.mu.Lock()
			c.barren = true
			c.mu.Unlock()
		}
		return c.store(value), nil
	})
}

// shared runs fetch once for all who wait for it. The fetch does not end with
// the caller who happened to start it, so each can give up alone.
func shared[T any](ctx context.Context, flight *singleflight.Group, fetch func(context.Context) (T, error)) (T, error) {
	fetched := flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		return fetch(ctx)
	})
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case result := <-fetched:
		return result.Val.(T), result.Err
	}
}

// store remembers a challenge that came with a response as the most recently
// received one. An empty value, for a response without one, changes nothing.
func (c *challenges) store(value string) *challenge {
	if value == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, known := range []*challenge{c.latest, c.fallback} {
		if known == nil || known.value != value {
			continue
		}
		// Servers repeat a challenge while it is good. It is still the same
		// one: when it came first and how often it was sent must not be
		// forgotten.
		if !c.singleUse {
			c.latest = known
		}
		return known
	}
	c.latest = c.receive(value)
	return c.latest
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
func (c *challenges) share(u use) {
	if u.challenge == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fallback == nil || c.fallback.number < u.number {
		c.fallback = u.challenge
	}
	if c.singleUse {
		return
	}
	if c.latest == nil || c.latest.number < u.number {
		c.latest = u.challenge
	}
}

// next returns the challenge for the retry after one was refused; ok is false if
// there is none that is new. offered is what came with the refusal: it is for
// this retry alone, since another request that used it up would cost this one
// its only retry.
func (c *challenges) next(ctx context.Context, refused use, offered string) (next use, ok bool, err error) {
	switch {
	case offered != "":
		return c.reserve(offered), offered != refused.value(), nil
	case c.fetch != nil:
		next, err = c.take(ctx)
		return next, err == nil && next.value() != "" && next.value() != refused.value(), err
	default:
		return use{}, false, nil
	}
}

// refused forgets a challenge that the server has refused, and learns from it.
func (c *challenges) refused(u use) {
	if u.challenge == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := c.now().Sub(u.received); u.reused && age >= 0 && age < singleUseWindow {
		c.singleUse = true
	}
	if c.latest == u.challenge || c.singleUse && c.latest != nil && c.latest.sends > 0 {
		c.latest = nil
	}
}
