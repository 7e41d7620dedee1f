package transport

import "context"

// take returns the challenge for the next PoP: the most recently received one,
// else one from the challenge endpoint, else, if the server has no endpoint,
// the last one seen, else none. It waits for the network at most, and ends with
// ctx.
func (c *challenges) take(ctx context.Context) (use, error) {
	c.mu.Lock()
	if next := c.next(); next != nil {
		defer c.mu.Unlock()
		return c.give(next), nil
	}
	if c.fetch == nil || c.barren || c.singleUse && c.nonce {
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
