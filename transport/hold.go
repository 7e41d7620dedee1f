// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"slices"
)

// held is a challenge for a proof that is signed ahead. It is not given out before the
// proof is sent, since nothing is to be learnt from it before. The zero held is a proof
// without any.
type held struct {
	*challenge
	own bool // it is kept from others, who may not have it: each is for one proof
}

// hold returns the challenge that take would now give. It waits for the network at most.
// ok is false if that one was sent before and would be refused now, so that there is no
// point in signing ahead.
func (p *pool) hold(ctx context.Context) (h held, ok bool, err error) {
	for {
		h, due, singleUse := p.holdAtHand()
		switch {
		case !due && singleUse && !h.own:
			return held{}, false, nil
		case !due:
			return h, true, nil
		case singleUse:
			c, err := p.fetchOwn(ctx)
			if c != nil || err != nil {
				return held{c, true}, err == nil, err
			}
		default:
			if _, err := p.flight.Do(ctx, "", p.fetchShared); err != nil {
				return held{}, false, err
			}
		}
		// The endpoint has none to give, or the server is of another kind, as we know
		// meanwhile; either is found at hand now.
	}
}

// holdAtHand holds what needs no fetch, unless one is due.
func (p *pool) holdAtHand() (h held, due, singleUse bool) {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.next(now)
	switch {
	case next != nil && p.singleUse:
		p.drop(func(c *challenge) bool { return c == next })
		return held{next, true}, false, true
	case next != nil:
		return held{next, false}, false, false
	case !p.asks(now):
		return held{p.fallback, false}, false, p.singleUse
	case p.learns(now):
		return held{p.proven, true}, false, true
	default:
		return held{}, true, p.singleUse
	}
}

// renew returns the most recent challenge in the place of one that is held for a proof
// which is not signed yet, if there is one at hand.
func (p *pool) renew(h held) held {
	if h.own {
		return h
	}
	next, due, singleUse := p.holdAtHand()
	if due || singleUse && !next.own {
		return h
	}
	return next
}

// isCurrent reports whether take would give h now, or as good a one.
func (p *pool) isCurrent(h held) bool {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stillHeld(h, p.next(now), p.asks(now)) && (!h.own || h.young(now))
}

// stillHeld: next is the one to be given out next, and asks whether there is an endpoint
// to ask otherwise. p.mu is held.
func (p *pool) stillHeld(h held, next *challenge, asks bool) bool {
	switch {
	case h.challenge == nil:
		return next == nil && p.fallback == nil && !asks
	case h.refused || !h.own && p.singleUse && h.sends > 0:
		return false
	case h.own || next == h.challenge:
		return true
	default:
		return next == nil && !asks && p.fallback == h.challenge
	}
}

// giveHeld gives out what is held, for a proof that is sent now; ok is false if it is not
// the one to send any more.
func (p *pool) giveHeld(h held) (u use, ok bool) {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stillHeld(h, p.next(now), p.asks(now)) || h.own && !h.young(now) {
		return use{}, false
	}
	if h.challenge == nil {
		return use{}, true
	}
	return p.give(h.challenge), true
}

// release lets others have what is held for a proof that is not sent.
func (p *pool) release(h held) {
	if !h.own || h.challenge == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.sends > 0 || h.refused || slices.Contains(p.ready, h.challenge) {
		return
	}
	place := slices.IndexFunc(p.ready, func(c *challenge) bool { return c.number > h.number })
	switch {
	case place < 0:
		p.add(h.challenge) // the most recent one
	case p.singleUse && len(p.ready) < maxSpares:
		p.ready = slices.Insert(p.ready, place, h.challenge)
	}
}
