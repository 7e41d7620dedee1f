// SPDX-License-Identifier: Apache-2.0

package flight

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// stalled is how long the first attempt may wait for the peer's answer before a
	// second one begins beside it.
	stalled = 5 * time.Second

	// replaced is how long the second attempt has until another one takes its place.
	replaced = 10 * time.Second

	// busy is how often an attempt is looked at that needs no second one.
	busy = time.Second

	// grace is how long attempts may take to say what they were at when time is up.
	grace = time.Second
)

// Attempt does work within limit. While again says that the work may be done twice,
// a second attempt begins beside one that has no answer after 5 seconds, and another
// takes the place of that one every 10 seconds: a connection that has died then holds
// up nobody for long. The first attempt keeps its full time. The first success counts.
// The failure of one attempt does not end the other.
func Attempt[T any](ctx context.Context, limit time.Duration, again func() bool, work Work[T]) (value T, err error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// There is room for all results, so that no attempt waits for a reader.
	results := make(chan result[T], int(limit/replaced)+2)
	first, second := begin(bounded, cancel, work, results), (*attempt)(nil)
	note := &first.note
	timer := time.NewTimer(stalled)
	defer timer.Stop()
	next, late := timer.C, (<-chan time.Time)(nil)
	ended, due := bounded.Done(), false
	for {
		select {
		case r := <-results:
			switch {
			case r.err == nil:
				return r.value, nil
			case r.attempt == first:
				first = nil
			case r.attempt == second:
				second.cancel()
				second = nil
			}
			// The last one, replaced when the time was up, says only that it was ended.
			if first == nil && second == nil && !due && !(late != nil && errors.Is(r.err, context.Canceled)) {
				return value, r.err
			}
		case <-next:
			switch wait := first.patience(second); {
			case !again():
				timer.Reset(busy)
			case wait > 0:
				timer.Reset(wait)
			case second != nil:
				due = true
				second.cancel() // and its place is taken when it has ended
			default:
				due = true
			}
		case <-ended:
			if ctx.Err() != nil {
				return value, context.Cause(ctx)
			}
			next, ended, late, due = nil, nil, time.After(grace), false
		case <-late:
			at := note.last()
			return value, &Gone{at.step, at.send, fmt.Errorf("no answer within %s: %w", limit, context.DeadlineExceeded)}
		}
		if due && second == nil && bounded.Err() == nil {
			own, cancel := context.WithCancel(bounded)
			second, due = begin(own, cancel, work, results), false
			timer.Reset(replaced)
		}
	}
}

// Always and Never are values of Attempt's again.
func Always() bool { return true }

// Never is the other one.
func Never() bool { return false }

// attempt is one attempt that is under way.
type attempt struct {
	note   note
	cancel context.CancelFunc
}

// patience returns how long to wait until another attempt may begin, 0 if it is due:
// beside first, or in the place of second if there is one.
func (first *attempt) patience(second *attempt) time.Duration {
	latest, limit := first, stalled
	if second != nil {
		latest, limit = second, 0 // it has had its time
	}
	if latest == nil {
		return 0
	}
	asked := latest.note.last().asked
	if asked.IsZero() {
		return busy
	}
	return limit - time.Since(asked)
}

type result[T any] struct {
	*attempt
	value T
	err   error
}

var errExited = errors.New("the attempt has ended its goroutine")

// begin begins an attempt. cancel ends ctx.
func begin[T any](ctx context.Context, cancel context.CancelFunc, work Work[T], results chan<- result[T]) *attempt {
	a := &attempt{cancel: cancel}
	a.note.outer, a.note.isAttempt = noteOf(ctx), true
	a.note.put(position{asked: time.Now()})
	ctx = a.note.in(ctx)
	go func() {
		r := result[T]{attempt: a, err: errExited}
		defer func() { results <- r }()
		r.value, r.err = work(ctx)
	}()
	return a
}
