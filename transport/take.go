package transport

import "context"

// take returns the challenge for the next PoP: the most recently received one,
// else one from the challenge endpoint, else, if the server has no endpoint,
// the last one seen, else none. It waits for the network at most, and ends with
// ctx.
func (c *challenges) take(ctx context.Context) (use, error) {
	for {
		u, ok, singleUse := c.atHand()
		if ok {
			return u, nil
		}
		if singleUse {
			value, err := c.fetch(ctx)
			return c.reserve(value), err
		}
		ch, err := c.fetchShared(ctx)
		if err != nil {
			return use{}, err
		}
		if u, ok := c.giveFetched(ch); ok {
			return u, nil
		}
		// The endpoint has none to give, or this one is another waiter's and, as
		// we know meanwhile, good for one only.
	}
}

// atHand gives out what needs no fetch; ok is false if one is due, and singleUse
// whether that is for one request alone.
func (c *challenges) atHand() (u use, ok, singleUse bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next := c.next(); next != nil {
		return c.give(next), true, false
	}
	if c.fetch != nil && !c.barren && !(c.singleUse && c.nonce) {
		return use{}, false, c.singleUse
	}
	if c.fallback != nil {
		u = c.give(c.fallback)
	}
	return u, true, false
}

// giveFetched gives out a challenge that several may have waited for.
func (c *challenges) giveFetched(ch *challenge) (u use, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch == nil || c.singleUse && ch.sends > 0 {
		return use{}, false
	}
	return c.give(ch), true
}

// takeUnused is take for a request that cannot afford another refusal: as long as
// nothing tells that the server takes challenges more than once, one that was sent
// before is left to others where the endpoint gives a new one.
func (c *challenges) takeUnused(ctx context.Context) (use, error) {
	c.mu.Lock()
	next := c.next()
	unused := c.reusable || next != nil && next.sends == 0 || c.fetch == nil || c.barren
	c.mu.Unlock()
	if unused {
		return c.take(ctx)
	}
	value, err := c.fetch(ctx)
	return c.reserve(value), err
}

// hasSpare reports whether taking one does not give out a used one of a server that
// takes each only once.
func (c *challenges) hasSpare() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.singleUse || c.next() != nil
}

// fetchShared asks the endpoint, with one request in flight for all who wait. It
// does not end with the caller who happened to start it, so each can give up
// alone; it ends with the Transport. The result is nil if the endpoint has no
// challenges to give.
func (c *challenges) fetchShared(ctx context.Context) (*challenge, error) {
	fetched := c.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		defer context.AfterFunc(c.closed, cancel)()
		ch, err := c.fetchNow(ctx)
		if err != nil && c.closed.Err() != nil {
			err = ErrClosed
		}
		return ch, err
	})
	select {
	case <-ctx.Done():
		// It may be stalled: whoever comes next does not wait for it, too.
		c.flight.Forget("")
		return nil, ctx.Err()
	case result := <-fetched:
		return result.Val.(*challenge), result.Err
	}
}

func (c *challenges) fetchNow(ctx context.Context) (*challenge, error) {
	c.mu.Lock()
	next := c.next()
	c.mu.Unlock()
	if next != nil {
		return next, nil // another caller's fetch was just before ours
	}
	value, err := c.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return c.fetched(value), nil
}

// retry returns the challenge for the retry after one was refused; ok is false if
// there is none that is new. offered is what came with the refusal: it is for
// this retry alone, since another request that used it up would cost this one
// its only retry.
func (c *challenges) retry(ctx context.Context, refused use, offered string) (next use, ok bool, err error) {
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
