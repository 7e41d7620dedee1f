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

// untyped is Work without the type of its result. What does it is compiled once, and not
// for each type: programs for small devices have it.
type untyped interface {
	do(context.Context) (any, error)
}

func (w Work[T]) do(ctx context.Context) (any, error) { return w(ctx) }

// A Group does work of one kind. Work of one name is done once at a time.
type Group[T any] struct{ group }

// group is a Group without the type.
type group struct {
	life   context.Context // all work ends with it
	limit  time.Duration
	repeat bool

	mu   sync.Mutex
	runs map[string]*run
}

// NewGroup returns a Group. Its work takes no longer than limit and ends with life. If
// repeat says that no harm is done by work that is done twice, there is a second
// attempt at times, while somebody waits; see [Attempt].
func NewGroup[T any](life context.Context, limit time.Duration, repeat bool) *Group[T] {
	return &Group[T]{group{life: life, limit: limit, repeat: repeat, runs: make(map[string]*run)}}
}

// run is work that is under way.
type run struct {
	group    *group
	name     string
	note     note
	attempts attempts
	done     chan struct{} // closed when value and err are set
	value    any
	err      error

	// Guarded by Group.mu.
	waiters  int
	owned    bool        // by the owner, who waits as well
	left     *time.Timer // since the last waiter has gone; nil while there is one
	finished bool
}

// Do returns what the work of that name comes to. It begins the work if that is not
// under way. If ctx ends first, the error is a *[Gone].
func (g *Group[T]) Do(ctx context.Context, name string, work Work[T]) (T, error) {
	result, err := g.do(ctx, name, work)
	value, _ := result.(T)
	return value, err
}

func (g *group) do(ctx context.Context, name string, work untyped) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Gone{Err: err}
	}
	r, err := g.join(ctx, name, work)
	if err != nil {
		return nil, err
	}
	defer g.leave(ctx, r)
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		at := r.note.last()
		return nil, &Gone{at.step, at.send, ctx.Err()}
	}
}

// Begin begins the work of that name, unless it is under way, and leaves the waiting
// to the owner of the Group.
func (g *Group[T]) Begin(ctx context.Context, name string, work Work[T]) {
	g.begin(ctx, name, work)
}

func (g *group) begin(ctx context.Context, name string, work untyped) {
	r, err := g.join(ctx, name, work)
	if err != nil {
		return
	}
	g.mu.Lock()
	r.owned = true
	g.mu.Unlock()
	g.leave(ctx, r)
}

func (g *group) join(ctx context.Context, name string, work untyped) (*run, error) {
	if g.life.Err() != nil {
		return nil, context.Cause(g.life)
	}
	outer := noteOf(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.runs[name]
	if r == nil {
		r = &run{group: g, name: name, done: make(chan struct{})}
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
func (r *run) isAwaited() bool {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	return r.group.repeat && r.waiters > 0
}

// end lets those who wait for r go. What was to be called after the work is theirs to
// call, last of all, if there are any: nobody else waits for that.
func (r *run) end(value any, err error) {
	if !r.finish(value, err) {
		r.note.land()
	}
}

// finish reports whether somebody waits for r.
func (r *run) finish(value any, err error) (isAwaited bool) {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	r.forget()
	r.value, r.err, r.finished = value, err, true
	close(r.done)
	return r.waiters > 0
}

func (g *group) leave(ctx context.Context, r *run) {
	if g.left(r) {
		After(ctx, r.note.land)
	}
}

// left notes that one who waited for r has gone, and reports whether r is finished.
func (g *group) left(r *run) (finished bool) {
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
func (r *run) abandoned(left **time.Timer) bool {
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
func (r *run) forget() {
	r.stay()
	if r.group.runs[r.name] == r {
		delete(r.group.runs, r.name)
	}
}

// stay ends the wait for somebody to come back. Group.mu is held.
func (r *run) stay() {
	if r.left != nil {
		r.left.Stop()
		r.left = nil
	}
}
