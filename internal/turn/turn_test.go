// SPDX-License-Identifier: Apache-2.0

package turn_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/instancekey/instancekey/internal/turn"
)

// A row lets callers queue up one after another behind a turn that is taken.
type row struct {
	queue turn.Queue
	order chan string
	errs  chan error
}

func newRow(t *testing.T) *row {
	r := &row{order: make(chan string, 10), errs: make(chan error, 10)}
	if err := r.queue.Take(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// join has one more caller wait.
func (r *row) join(ctx, life context.Context, name string, background bool, wanted <-chan struct{}) {
	go func() {
		take := func() error { return r.queue.Take(ctx, life) }
		if background {
			take = func() error { return r.queue.TakeInBackground(ctx, life, wanted) }
		}
		if err := take(); err != nil {
			r.errs <- err
			return
		}
		r.order <- name
		r.queue.Give()
	}()
	synctest.Wait()
}

func (r *row) want(t *testing.T, names ...string) {
	t.Helper()
	r.queue.Give()
	synctest.Wait()
	var got []string
	for len(r.order) > 0 {
		got = append(got, <-r.order)
	}
	if !slices.Equal(got, names) {
		t.Errorf("order %q, want %q", got, names)
	}
	if err := r.queue.Take(t.Context(), t.Context()); err != nil { // it was given back
		t.Error(err)
	}
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := newRow(t), t.Context()
		wanted := make(chan struct{})
		r.join(ctx, ctx, "ahead 1", true, nil)
		r.join(ctx, ctx, "ahead 2", true, wanted)
		r.join(ctx, ctx, "a", false, nil)
		r.join(ctx, ctx, "b", false, nil)
		close(wanted)
		synctest.Wait()
		r.join(ctx, ctx, "c", false, nil)
		r.want(t, "a", "b", "ahead 2", "c", "ahead 1")
	})
}

// TestLeave: whoever gives up leaves the others their order, and one that would have had
// the turn gives it on.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := newRow(t), t.Context()
		gone, goes := context.WithCancel(ctx)
		closed, closes := context.WithCancelCause(ctx)
		wanted := make(chan struct{})
		r.join(gone, ctx, "gone", false, nil)
		r.join(gone, ctx, "gone in the background", true, nil)
		r.join(gone, ctx, "gone although wanted", true, wanted)
		r.join(ctx, closed, "closed", false, nil)
		r.join(ctx, ctx, "a", false, nil)
		close(wanted)
		synctest.Wait()
		goes()
		closes(errors.New("closed"))
		synctest.Wait()
		if n := len(r.errs); n != 4 {
			t.Errorf("%d have given up, want 4", n)
		}
		for len(r.errs) > 0 {
			if err := <-r.errs; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		r.want(t, "a")
	})
}

// TestOneAtATime: whoever comes, goes and is wanted at the same time.
func TestOneAtATime(t *testing.T) {
	var queue turn.Queue
	var inside, served atomic.Int32
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				wanted := make(chan struct{})
				var err error
				switch i % 4 {
				case 0:
					go cancel()
					err = queue.Take(ctx, t.Context())
				case 1:
					go close(wanted)
					err = queue.TakeInBackground(ctx, t.Context(), wanted)
				case 2:
					go cancel()
					go close(wanted)
					err = queue.TakeInBackground(ctx, t.Context(), wanted)
				default:
					err = queue.Take(ctx, t.Context())
				}
				if err == nil {
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d have the turn", n)
					}
					served.Add(1)
					inside.Add(-1)
					queue.Give()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if served.Load() < 32*50 {
		t.Errorf("%d served, want at least those that do not give up", served.Load())
	}
	if err := queue.Take(t.Context(), t.Context()); err != nil {
		t.Error(err)
	}
}
