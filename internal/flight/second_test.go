// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

// begins is work that never answers, and notes after how long each attempt at it began.
// The n-th, from 1, does first what before says.
type begins struct {
	start  time.Time
	before map[int]func(context.Context)

	mu sync.Mutex
	at []time.Duration
}

func (b *begins) times() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.at)
}

func (b *begins) work(ctx context.Context) (string, error) {
	b.mu.Lock()
	b.at = append(b.at, time.Since(b.start))
	n := len(b.at)
	b.mu.Unlock()
	if f := b.before[n]; f != nil {
		f(ctx)
	}
	<-ctx.Done()
	return "", ctx.Err()
}

// TestWhenAnotherAttemptBegins: only while somebody waits, and beside one that waits for
// the peer, not for itself.
func TestWhenAnotherAttemptBegins(t *testing.T) {
	busyFor := func(d time.Duration) func(context.Context) {
		return func(ctx context.Context) {
			flight.At(ctx, "sign", 1)
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			flight.Asked(ctx, "ask", 1)
		}
	}
	awaitedFrom := func(d time.Duration, b *begins) func() bool {
		return func() bool { return time.Since(b.start) >= d }
	}
	for name, test := range map[string]struct {
		awaited time.Duration
		before  map[int]func(context.Context)
		want    []time.Duration
	}{
		"beside one that waits":         {0, nil, []time.Duration{0, 5 * time.Second, 15 * time.Second, 25 * time.Second}},
		"once it is awaited":            {8 * time.Second, nil, []time.Duration{0, 8 * time.Second, 18 * time.Second, 28 * time.Second}},
		"not beside one that is busy":   {0, map[int]func(context.Context){1: busyFor(7 * time.Second)}, []time.Duration{0, 12 * time.Second, 22 * time.Second}},
		"in no place of a busy one":     {0, map[int]func(context.Context){2: busyFor(17 * time.Second)}, []time.Duration{0, 5 * time.Second, 22 * time.Second}},
		"where nobody waits, only once": {time.Hour, nil, []time.Duration{0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &begins{start: time.Now(), before: test.before}
				_, err := flight.Attempt(t.Context(), 30*time.Second, awaitedFrom(test.awaited, b), b.work)
				got := b.times()
				if !errors.Is(err, context.DeadlineExceeded) || len(got) != len(test.want) {
					t.Fatalf("%v, attempts after %v, want %v", err, got, test.want)
				}
				for i, at := range got {
					if late := at - test.want[i]; late < 0 || late > time.Second { // what is busy is looked at each second
						t.Errorf("attempt %d after %s, want %s", i+1, at, test.want[i])
					}
				}
			})
		})
	}
}

// TestBegunWorkHasNoSecondAttempt as long as its owner is alone.
func TestBegunWorkHasNoSecondAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &begins{start: time.Now()}
		g := flight.NewGroup[string](t.Context(), 30*time.Second, true)
		g.Begin(t.Context(), "", b.work)
		time.Sleep(12500 * time.Millisecond)
		if at := b.times(); len(at) != 1 {
			t.Errorf("attempts after %v", at)
		}
		_, err := g.Do(t.Context(), "", b.work)
		if at := b.times(); err == nil || len(at) < 2 || at[1] < 12*time.Second {
			t.Errorf("%v, attempts after %v", err, at)
		}
	})
}

// TestIsSecond is what an attempt is told of itself, and other work is not.
func TestIsSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seconds, within []bool
		inner := flight.NewGroup[string](t.Context(), limit, true)
		_, err := flight.Attempt(t.Context(), 12*time.Second, flight.Always, func(ctx context.Context) (string, error) {
			mu.Lock()
			seconds = append(seconds, flight.IsSecond(ctx))
			name := fmt.Sprint(len(seconds))
			mu.Unlock()
			_, _ = inner.Do(ctx, name, func(ctx context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				within = append(within, flight.IsSecond(ctx))
				return "", nil
			})
			<-ctx.Done()
			return "", ctx.Err()
		})
		mu.Lock()
		defer mu.Unlock()
		if err == nil || len(seconds) != 2 || seconds[0] || !seconds[1] || len(within) != 2 || within[0] || within[1] {
			t.Errorf("%v, second: %v, within: %v", err, seconds, within)
		}
		if flight.IsSecond(t.Context()) {
			t.Error("a context that is no attempt's")
		}
	})
}

// TestCancelledByItself: an attempt whose error is about a context of its own has failed
// like any other.
func TestCancelledByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := flight.Attempt(t.Context(), limit, flight.Always, func(context.Context) (string, error) { return "", context.Canceled })
		if err != context.Canceled || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestFailureHasNoValue, whatever the work returns beside its error.
func TestFailureHasNoValue(t *testing.T) {
	value, err := flight.Attempt(t.Context(), limit, flight.Never, func(context.Context) (string, error) { return "half", errWork })
	if value != "" || err != errWork {
		t.Errorf("%q, %v", value, err)
	}
}

// TestCauseOfTheEnd is what the caller ended the work for, whatever that makes of it.
func TestCauseOfTheEnd(t *testing.T) {
	cause := errors.New("closed")
	for range 200 { // the work and the end of its context race for who tells
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := flight.Attempt(ctx, limit, flight.Never, func(context.Context) (string, error) {
			cancel(cause)
			return "", errWork
		})
		if err != cause {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	got, err := flight.Attempt(ctx, limit, flight.Never, func(context.Context) (string, error) {
		defer cancel(cause)
		return "in time", nil
	})
	if got != "in time" && err != cause {
		t.Errorf("%q, %v", got, err)
	}
}

// TestTimeIsUpWhileOneIsReplaced: that it was ended is no error to tell.
func TestTimeIsUpWhileOneIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 15100 * time.Millisecond // 100 ms after the second one is ended
		var attempts atomic.Int32
		_, err := flight.Attempt(t.Context(), limit, flight.Always, func(ctx context.Context) (string, error) {
			if attempts.Add(1) == 1 {
				time.Sleep(6 * time.Second)
				return "", errWork
			}
			flight.Asked(ctx, "ask", 3)
			<-ctx.Done()
			time.Sleep(300 * time.Millisecond)
			return "", ctx.Err()
		})
		var gone *flight.Gone
		if !errors.As(err, &gone) || !errors.Is(err, context.DeadlineExceeded) || attempts.Load() != 2 {
			t.Errorf("%v, %d attempts", err, attempts.Load())
		}
	})
}

// TestOthersStay as one who waits goes.
func TestOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{15 * time.Second}}
		g := flight.NewGroup[string](t.Context(), limit, false)
		go func() { _, _ = g.Do(within(t, time.Second), "", e.work) }()
		if got, err := g.Do(t.Context(), "", e.work); got != "answer 1" || err != nil {
			t.Error(got, err)
		}
	})
}

// TestAfterWorkThatNobodyWaitsFor: the owner is never alone with what comes after.
func TestAfterWorkThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.NewGroup[string](t.Context(), limit, false)
		called := 0
		g.Begin(t.Context(), "", func(ctx context.Context) (string, error) {
			flight.After(ctx, func() { called++ })
			return "", nil
		})
		synctest.Wait()
		if called != 1 {
			t.Errorf("called %d times", called)
		}
	})
}

// TestAttemptWithinAnother speaks for itself: those who wait for the outer one are told
// what that is at.
func TestAttemptWithinAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.NewGroup[string](t.Context(), limit, false)
		_, err := g.Do(within(t, time.Second), "", func(ctx context.Context) (string, error) {
			flight.At(ctx, "outer", 1)
			return flight.Attempt(ctx, limit, flight.Never, func(ctx context.Context) (string, error) {
				flight.At(ctx, "inner", 2)
				<-ctx.Done()
				return "", ctx.Err()
			})
		})
		var gone *flight.Gone
		if !errors.As(err, &gone) || gone.Step != "outer" || gone.Send != 1 {
			t.Errorf("%#v", err)
		}
	})
}
