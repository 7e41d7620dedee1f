// SPDX-License-Identifier: Apache-2.0

package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// ErrReplaced is the cause that ends a second attempt whose place another one takes.
var ErrReplaced = errors.New("another attempt has taken its place")

var errExited = errors.New("the attempt has ended its goroutine")

// Attempt does work within limit. While again says that the work may be done twice,
// a second attempt begins beside one that has no answer after 5 seconds, and another
// takes the place of that one every 10 seconds: a connection that has died then holds
// up nobody for long. The first attempt keeps its full time. The first success counts.
// The failure of one attempt does not end the other.
func Attempt[T any](ctx context.Context, limit time.Duration, again func() bool, work Work[T]) (T, error) {
	o := &caller{again: again, done: make(chan struct{})}
	new(attempts).begin(ctx, limit, work, o)
	<-o.done
	value, _ := o.value.(T)
	return value, o.err
}

// Always and Never are values of Attempt's again.
func Always() bool { return true }

// Never is the other one.
func Never() bool { return false }

// owner is who has work done.
type owner interface {
	isAwaited() bool // whether a second attempt would do somebody good
	end(any, error)  // is called once, by whatever ends the work
}

// caller is the owner that waits itself.
type caller struct {
	again func() bool
	done  chan struct{}
	value any
	err   error
}

func (c *caller) isAwaited() bool { return c.again() }

func (c *caller) end(value any, err error) {
	c.value, c.err = value, err
	close(c.done)
}

// attempts are those at one piece of work. No goroutine looks after them: each event,
// be it an attempt's end, a timer or the end of a context, does what comes next.
type attempts struct {
	owner owner
	work  untyped
	limit time.Duration

	outer  context.Context
	ctx    context.Context // ends with outer, with the limit, and with the attempts
	cancel context.CancelFunc
	unhook func() bool // from the end of ctx
	note   *note       // of the first

	mu            sync.Mutex
	first, second *attempt // nil: not under way
	timer         *time.Timer
	due           bool // another second one is
	late          bool // the time is up
	over          bool // the owner is told, or about to be
}

// attempt is one attempt that is under way.
type attempt struct {
	note   note
	cancel context.CancelCauseFunc // of a second one
}

// begin begins the first attempt.
func (a *attempts) begin(ctx context.Context, limit time.Duration, work untyped, o owner) {
	a.mu.Lock() // what is begun here may end before the rest is
	defer a.mu.Unlock()
	a.outer, a.limit, a.work, a.owner = ctx, limit, work, o
	a.ctx, a.cancel = context.WithTimeout(ctx, limit)
	a.first = new(attempt)
	a.note = &a.first.note
	a.timer = time.AfterFunc(stalled, a.look)
	a.unhook = context.AfterFunc(a.ctx, a.expire)
	go a.do(a.first.in(a.ctx), a.first)
}

// beginSecond begins a second attempt. a.mu is held.
func (a *attempts) beginSecond() {
	var own context.Context
	a.second, a.due = new(attempt), false
	a.second.note.isSecond = true
	own, a.second.cancel = context.WithCancelCause(a.ctx)
	a.timer.Reset(replaced)
	go a.do(a.second.in(own), a.second)
}

// in returns ctx as that of t, which begins to wait for the peer's answer.
func (t *attempt) in(ctx context.Context) context.Context {
	t.note.outer, t.note.isAttempt = noteOf(ctx), true
	t.note.put(position{asked: time.Now()})
	return t.note.in(ctx)
}

func (a *attempts) do(ctx context.Context, t *attempt) {
	var value any
	err := errExited
	defer func() {
		if err != nil && a.outer.Err() != nil {
			err = context.Cause(a.outer) // whatever the attempt makes of it
		}
		if a.ended(t, err) {
			a.tell(value, err)
		}
	}()
	value, err = a.work.do(ctx)
}

// ended takes an attempt's end, and reports whether it is that of all.
func (a *attempts) ended(t *attempt, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over || err == nil:
		return a.endAll()
	case t == a.first:
		a.first = nil
	default:
		t.cancel(nil)
		a.second = nil
	}
	switch {
	case a.second != nil:
	case a.due && a.ctx.Err() == nil:
		a.beginSecond()
	case a.first != nil:
	case (a.due || a.late) && errors.Is(err, context.Canceled):
		// The last one, replaced when the time was up, says only that it was ended.
	default:
		return a.endAll()
	}
	return false
}

// endAll reports whether the owner is still to be told. a.mu is held.
func (a *attempts) endAll() bool {
	ends := !a.over
	a.over = true
	return ends
}

// tell tells the owner what the work came to.
func (a *attempts) tell(value any, err error) {
	a.timer.Stop()
	a.unhook()
	a.cancel()
	if err != nil {
		value = nil
	}
	a.owner.end(value, err)
}

// abandon ends the attempts from outside.
func (a *attempts) abandon(err error) {
	a.mu.Lock()
	ends := a.endAll()
	a.mu.Unlock()
	if ends {
		a.tell(nil, err)
	}
}

// look sees whether a second attempt is due.
func (a *attempts) look() {
	isAwaited := a.owner.isAwaited()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.late {
		return
	}
	switch wait := a.patience(); {
	case !isAwaited:
		a.timer.Reset(busy)
	case wait > 0:
		a.timer.Reset(wait)
	case a.second != nil:
		a.due = true
		a.second.cancel(ErrReplaced) // and its place is taken when it has ended
	default:
		a.beginSecond()
	}
}

// patience returns how long to wait until another attempt may begin, 0 if it is due:
// beside the first, or in the place of the second if there is one. a.mu is held.
func (a *attempts) patience() time.Duration {
	latest, limit := a.first, stalled
	if a.second != nil {
		latest, limit = a.second, 0 // it has had its time
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

// expire is called at the end of a.ctx. When the time is up, the attempts may still say
// what they were at.
func (a *attempts) expire() {
	if a.outer.Err() != nil {
		a.abandon(context.Cause(a.outer))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late, a.due = true, false
	a.timer.Stop()
	if !a.over {
		a.timer = time.AfterFunc(grace, a.giveUp)
	}
}

func (a *attempts) giveUp() {
	at := a.note.last()
	a.abandon(&Gone{at.step, at.send, fmt.Errorf("no answer within %s: %w", a.limit, context.DeadlineExceeded)})
}
