// SPDX-License-Identifier: Apache-2.0

package flight

import (
	"context"
	"sync"
	"time"
)

// Gone is the error of a wait for work that has no result: the caller's context has
// ended, or the work's time, or the work would have to wait for itself.
type Gone struct {
	Step string // what the work was at, as it has said by [At]; "" if it did not
	Send int    // likewise
	Err  error  // the context's, or ErrOwn
}

// Error is that of Err.
func (g *Gone) Error() string { return g.Err.Error() }

// Unwrap returns Err.
func (g *Gone) Unwrap() error { return g.Err }

// At notes what the attempt that ctx belongs to is at, for those who give up waiting.
// From then on it is not the peer that the attempt waits for, but something that takes
// care of itself: its own work, or that of others. At does nothing if ctx belongs to no
// attempt, and nor does Asked.
func At(ctx context.Context, step string, send int) {
	if n := noteOf(ctx); n != nil {
		n.put(position{step: step, send: send})
	}
}

// Asked is At for an attempt that begins to wait for the peer's answer now. An attempt
// that says nothing of itself waits for it all the time.
func Asked(ctx context.Context, step string, send int) {
	if n := noteOf(ctx); n != nil {
		n.put(position{step, send, time.Now()})
	}
}

// After calls f once the work that ctx belongs to is done, as well as the work that
// has begun that, so that nobody waits for any of it who waits for f. It calls f at once
// if ctx belongs to none.
func After(ctx context.Context, f func()) {
	if n := noteOf(ctx); n == nil || !n.defers(f) {
		f()
	}
}

// IsSecond reports whether ctx belongs to a second attempt, and to no other work that
// has begun in the course of it.
func IsSecond(ctx context.Context) bool {
	n := noteOf(ctx)
	return n != nil && n.isSecond
}

// note is what one attempt has noted, or the last of those of a run. outer is the run's
// of an attempt, and of a run that of the attempt that began it.
type note struct {
	outer     *note
	isAttempt bool
	isSecond  bool // of an attempt: it is a second one

	mu    sync.Mutex
	at    position
	after []func()
	done  bool
}

// position is what an attempt is at.
type position struct {
	step  string
	send  int
	asked time.Time // since when the peer's answer is waited for; zero: it is not
}

func (n *note) put(at position) {
	n.mu.Lock()
	n.at = at
	n.mu.Unlock()
	if n.isAttempt && n.outer != nil && !n.outer.isAttempt { // an attempt within another speaks for itself
		n.outer.put(at)
	}
}

func (n *note) defers(f func()) bool {
	if n.outer != nil && n.outer.defers(f) {
		return true
	}
	if n.isAttempt {
		return false // what is done is its run, or it has none
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.done {
		n.after = append(n.after, f)
	}
	return !n.done
}

// land calls what was to be called after the work.
func (n *note) land() {
	n.mu.Lock()
	after := n.after
	n.after, n.done = nil, true
	n.mu.Unlock()
	for _, f := range after {
		f()
	}
}

type noteKey struct{}

func noteOf(ctx context.Context) *note {
	n, _ := ctx.Value(noteKey{}).(*note)
	return n
}

func (n *note) in(ctx context.Context) context.Context { return context.WithValue(ctx, noteKey{}, n) }

func (n *note) last() position {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

// encloses reports whether inner belongs to this run, or to one that it began.
func (n *note) encloses(inner *note) bool {
	for inner != nil && inner != n {
		inner = inner.outer
	}
	return inner == n
}
