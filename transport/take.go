// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

const (
	// noneGiven is how long an endpoint that gave challenges is not asked for nonces
	// after it gave none.
	noneGiven = time.Hour

	// noneNow is how long an endpoint is not asked after it gave nothing.
	noneNow = 5 * time.Minute
)

func newPool(life context.Context, clock func() time.Time) *pool {
	return &pool{life: life, clock: clock, flight: flight.NewGroup[*challenge](life, fetchTimeout, true)}
}

// setFetch lets challenges come from an endpoint, if there is one.
func (p *pool) setFetch(endpoint string, fetch func(context.Context) (string, error)) {
	if endpoint != "" {
		p.fetch = fetch
	}
}

// take returns the challenge for the next PoP: the most recently received one,
// else one from the challenge endpoint, else, if the server has no endpoint,
// the last one seen, else none. It waits for the network at most, and ends with
// ctx.
func (p *pool) take(ctx context.Context) (use, error) {
	for {
		u, ok, singleUse := p.atHand()
		if ok {
			return u, nil
		}
		if singleUse {
			return p.takeOwn(ctx)
		}
		c, err := p.flight.Do(ctx, "", p.fetchShared)
		if err != nil {
			return use{}, err
		}
		if u, ok := p.giveFetched(c); ok {
			return u, nil
		}
		// The endpoint has none to give, or this one is another waiter's and, as
		// we know meanwhile, good for one only.
	}
}

// atHand gives out what needs no fetch; ok is false if one is due, and singleUse
// whether that is for one request alone.
func (p *pool) atHand() (u use, ok, singleUse bool) {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if next := p.next(now); next != nil {
		return p.give(next), true, false
	}
	if p.asks(now) {
		if p.learns(now) {
			return p.give(p.proven), true, false
		}
		return use{}, false, p.singleUse
	}
	if p.fallback != nil {
		u = p.give(p.fallback)
	}
	return u, true, false
}

// asks reports whether the endpoint is asked where no challenge is at hand. p.mu is held.
func (p *pool) asks(now time.Time) bool {
	return p.fetch != nil && !p.barren.holds(now) && !(p.singleUse && p.optional)
}

// learns reports whether it is time to try a challenge of a single-use server twice, and
// notes that this is done. The endpoint has another one for the retry, should it be
// refused. p.mu is held.
func (p *pool) learns(now time.Time) bool {
	if !p.singleUse || p.proven == nil || !p.proven.young(now) || p.lesson.holds(now) {
		return false
	}
	p.lesson = pause{now, singleUseLesson}
	return true
}

// giveFetched gives out a challenge that several may have waited for.
func (p *pool) giveFetched(c *challenge) (u use, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c == nil || p.singleUse && c.sends > 0 {
		return use{}, false
	}
	return p.give(c), true
}

// takeUnused is take for a request that cannot afford another refusal: as long as
// nothing tells that the server takes challenges more than once, one that was sent
// before is left to others where the endpoint gives a new one.
func (p *pool) takeUnused(ctx context.Context) (use, error) {
	now := p.clock()
	p.mu.Lock()
	next := p.next(now)
	unused := p.reusable || next != nil && next.sends == 0 || p.fetch == nil || p.barren.holds(now)
	p.mu.Unlock()
	if unused {
		return p.take(ctx)
	}
	return p.takeOwn(ctx)
}

// hasSpare reports whether taking one does not give out a used one of a server that
// takes each only once.
func (p *pool) hasSpare() bool {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.singleUse || p.next(now) != nil
}

// takeOwn returns a challenge from the endpoint for one request alone.
func (p *pool) takeOwn(ctx context.Context) (use, error) {
	c, err := p.fetchOwn(ctx)
	if c == nil {
		return use{}, err
	}
	c.sends = 1
	return use{challenge: c}, nil
}

// fetchOwn asks the endpoint on behalf of one request. Nobody else sees what it gives,
// which is nil if it has none.
func (p *pool) fetchOwn(ctx context.Context) (*challenge, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.life, func() { cancel(context.Cause(p.life)) })()
	value, err := flight.Attempt(ctx, fetchTimeout, flight.Always, p.fetch)
	if err != nil {
		return nil, err
	}
	if value == "" {
		return p.fetched("", noneNow), nil
	}
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.receive(value, now), nil
}

// fetchShared asks the endpoint on behalf of all who wait. The result is nil if the
// endpoint has no challenges to give.
func (p *pool) fetchShared(ctx context.Context) (*challenge, error) {
	now := p.clock()
	p.mu.Lock()
	next := p.next(now)
	p.mu.Unlock()
	if next != nil {
		return next, nil // another caller's fetch was just before ours
	}
	value, err := p.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return p.fetched(value, noneNow), nil
}

// fetched remembers a challenge that the endpoint gave, or that it has none and is
// not to be asked for so long.
func (p *pool) fetched(value string, otherwise time.Duration) *challenge {
	if value != "" {
		return p.store(value)
	}
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.barren.holds(now) || p.barren.length < otherwise {
		p.barren = pause{now, otherwise}
	}
	return nil
}

// doubtBarren has the endpoint asked again that gave nothing: the server wants what it
// is there for. (A refusal for want of a nonce brings the nonce itself.)
func (p *pool) doubtBarren() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.optional {
		p.barren = pause{}
	}
}

// retry returns the challenge for the retry after one was refused; ok is false if
// there is none that is new. offered is what came with the refusal: it is for
// this retry alone, since another request that used it up would cost this one
// its only retry.
func (p *pool) retry(ctx context.Context, refused use, offered string) (next use, ok bool, err error) {
	switch {
	case offered != "":
		return p.reserve(offered), offered != refused.value(), nil
	case p.fetch != nil:
		p.doubtBarren()
		next, err = p.take(ctx)
		return next, err == nil && next.value() != "" && next.value() != refused.value(), err
	default:
		return use{}, false, nil
	}
}
