// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause   = time.Second
	longestPause = 5 * time.Minute
)

// A backoff is how often something has failed in a row. The zero value is
// never.
type backoff struct{ failures int }

// next returns how long to wait until the next try: twice as long each time up
// to longestPause, and, at random, up to half of that less. After a power
// failure all devices of a street start at the same moment.
func (b *backoff) next() time.Duration {
	pause := longestPause
	if b.failures < 16 {
		pause = min(firstPause<<b.failures, longestPause)
	}
	b.failures++
	return pause/2 + rand.N(pause/2)
}

// jitter returns about d.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// sleep waits, and returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
