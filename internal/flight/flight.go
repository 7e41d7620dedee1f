// SPDX-License-Identifier: Apache-2.0

// Package flight shares work among those who wait for it, so that a peer that
// stalls holds up few of them, and nothing piles up.
//
// Whoever wants work that is under way joins it. The result reaches all who wait.
// A caller's context ends that caller's wait and nobody else's. Work goes on for a
// while after the last of them has gone, since whoever gives up often comes again.
// Then it ends.
package flight

import (
	"context"
	"errors"
	"sync"
	"time"
)

// linger is how long work goes on after the last who waited for it has gone.
const linger = 10 * time.Second

// ErrOwn is the error of work that would have to wait for itself, because a hook
// that is called in the course of it asks for it.
var ErrOwn = errors.New("asked for by what it waits for")

// Work is something to do, perhaps more than once: each attempt has a context of
// its own, with the values of the context of whoever began the work.
type Work[T any] func(context.Context) (T, error)

// A Group does work of one kind. Work of one name is done once at a time.
type Group[T any] struct {
	life   context.Context // all work ends with it
	limit  time.Duration
	repeat bool

	mu   sync.Mutex
	runs map[string]*run[T]
}

// NewGroup returns a Group. Its work takes no longer than limit and ends with life. If
// repeat says that no harm is done by work that is done twice, there is a second
// attempt at times, while somebody waits; see [Attempt].
func NewGroup[T any](life context.Context, limit time.Duration, repeat bool) *Group[T] {
	return &Group[T]{life: life, limit: limit, repeat: repeat, runs: make(map[string]*run[T])}
}

// run is work that is under way.
type run[T any] struct {
	group    *Group[T]
	name     string
	note     note
	attempts attempts[T]
	done     chan struct{} // closed when value and err are set
	value    T
	err      error

	// Guarded by Group.mu.
	waiters  int
	owned    bool        // by the owner, who waits as well
	left     *time.Timer // since the last waiter has gone; nil while there is one
	finished bool
}

// Do returns what the work of that name comes to. It begins the work if that is not
// under way. If ctx ends first, the error is a *[Gone].
func (g *Group[T]) Do(ctx context.Context, name string, work Work[T]) (value T, err error) {
	if err := ctx.Err(); err != nil {
		return value, &Gone{Err: err}
	}
	r, err := g.join(ctx, name, work)
	if err != nil {
		return value, err
	}
	defer g.leave(ctx, r)
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		at := r.note.last()
		return value, &Gone{at.step, at.send, ctx.Err()}
	}
}

// Begin begins the work of that name, unless it is under way, and leaves the waiting
// to the owner of the Group.
func (g *Group[T]) Begin(ctx context.Context, name string, work Work[T]) {
	r, err := g.join(ctx, name, work)
	if err != nil {
		return
	}
	g.mu.Lock()
	r.owned = true
	g.mu.Unlock()
	g.leave(ctx, r)
}

func (g *Group[T]) join(ctx context.Context, name string, work Work[T]) (*run[T], error) {
	if g.life.Err() != nil {
		return nil, context.Cause(g.life)
	}
	outer := noteOf(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.runs[name]
	if r == nil {
		r = &run[T]{group: g, name: name, done: make(chan struct{})}
		r.note.outer = outer
		g.runs[name] = r
		r.attempts.begin(r.note.in(detached{g.life, ctx}), g.limit, work, r)
	} else if r.note.encloses(outer) {
		return nil, &Gone{Err: ErrOwn}
	}
	r.waiters++
	r.stay()
	return r, nil
}

// detached ends with one context and has the values of another.
type detached struct {
	context.Context
	values context.Context
}

func (d detached) Value(key any) any {
	// First of all package context is told, by a key of its own, what it ends with.
	if value := d.Context.Value(key); value != nil {
		return value
	}
	return d.values.Value(key)
}

// isAwaited reports whether a second attempt at r would do somebody good.
func (r *run[T]) isAwaited() bool {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	return r.group.repeat && r.waiters > 0
}

// end lets those who wait for r go. What was to be called after the work is theirs to
// call, last of all, if there are any: nobody else waits for that.
func (r *run[T]) end(value T, err error) {
	if !r.finish(value, err) {
		r.note.land()
	}
}

// finish reports whether somebody waits for r.
func (r *run[T]) finish(value T, err error) (isAwaited bool) {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	r.forget()
	r.value, r.err, r.finished = value, err, true
	close(r.done)
	return r.waiters > 0
}

func (g *Group[T]) leave(ctx context.Context, r *run[T]) {
	if g.left(r) {
		After(ctx, r.note.land)
	}
}

// left notes that one who waited for r has gone, and reports whether r is finished.
func (g *Group[T]) left(r *run[T]) (finished bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.waiters--; r.waiters > 0 || r.owned || g.runs[r.name] != r {
		return r.finished
	}
	var left *time.Timer
	left = time.AfterFunc(linger, func() {
		if r.abandoned(&left) {
			r.attempts.abandon(errLeft)
		}
	})
	r.left = left
	return false
}

// abandoned reports whether nobody has come at the last moment, since left was begun.
func (r *run[T]) abandoned(left **time.Timer) bool {
	r.group.mu.Lock() // under which left was set, too
	defer r.group.mu.Unlock()
	if r.left != *left {
		return false
	}
	r.forget()
	return true
}

var errLeft = errors.New("nobody waits for it any more")

// forget has the next who comes begin anew. Group.mu is held.
func (r *run[T]) forget() {
	r.stay()
	if r.group.runs[r.name] == r {
		delete(r.group.runs, r.name)
	}
}

// stay ends the wait for somebody to come back. Group.mu is held.
func (r *run[T]) stay() {
	if r.left != nil {
		r.left.Stop()
		r.left = nil
	}
}
