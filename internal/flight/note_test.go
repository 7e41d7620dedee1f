// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

func TestGoneTellsTheStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{-1}}
		g := flight.NewGroup[string](t.Context(), limit, false)
		_, err := g.Do(within(t, time.Second), "", e.work)
		var gone *flight.Gone
		if !errors.As(err, &gone) || gone.Step != "ask" || gone.Send != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%#v", err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Do(cancelled, "other", e.work); !errors.Is(err, context.Canceled) || e.begun.Load() != 1 {
			t.Errorf("%v, %d attempts", err, e.begun.Load())
		}
	})
}

// TestWorkDoesNotWaitForItself, be it in the same run or one that it has begun.
func TestWorkDoesNotWaitForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := flight.NewGroup[string](t.Context(), limit, false)
		inner := flight.NewGroup[string](t.Context(), limit, false)
		var again flight.Work[string]
		again = func(ctx context.Context) (string, error) { return outer.Do(ctx, "", again) }
		start := time.Now()
		if _, err := outer.Do(t.Context(), "", again); !errors.Is(err, flight.ErrOwn) {
			t.Error(err)
		}
		through := func(ctx context.Context) (string, error) { return inner.Do(ctx, "", again) }
		if _, err := outer.Do(t.Context(), "", through); !errors.Is(err, flight.ErrOwn) || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestAfter: what is called after the work finds that nobody waits for it any more but
// who calls it, be it one of those who waited or the work itself.
func TestAfter(t *testing.T) {
	for name, waits := range map[string]bool{"somebody waits": true, "nobody waits": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner, outer := flight.NewGroup[string](t.Context(), limit, false), flight.NewGroup[string](t.Context(), limit, false)
				called := 0
				work := func(ctx context.Context) (string, error) {
					time.Sleep(time.Second)
					flight.After(ctx, func() {
						called++
						// Joins what has joined the work.
						if _, err := outer.Do(t.Context(), "", func(context.Context) (string, error) { return "", nil }); err != nil {
							t.Error(err)
						}
					})
					return "", nil
				}
				start := time.Now()
				if waits {
					go inner.Do(t.Context(), "", work)
				} else {
					inner.Begin(t.Context(), "", work)
				}
				synctest.Wait()
				join := func(ctx context.Context) (string, error) { return inner.Do(ctx, "", work) }
				if _, err := outer.Do(t.Context(), "", join); err != nil || time.Since(start) != time.Second {
					t.Errorf("%v after %s", err, time.Since(start))
				}
				synctest.Wait()
				if called != 1 {
					t.Errorf("called %d times", called)
				}
			})
		})
	}
	t.Run("an attempt that is no run's", func(t *testing.T) {
		called := 0
		work := func(ctx context.Context) (string, error) {
			flight.After(ctx, func() { called++ })
			return "", nil
		}
		if _, err := flight.Attempt(t.Context(), limit, flight.Never, work); err != nil || called != 1 {
			t.Errorf("%v, called %d times", err, called)
		}
	})
}
