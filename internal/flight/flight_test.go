// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

const limit = time.Minute

var errWork = errors.New("it failed")

// An endpoint is work that counts what is open at it. It answers attempt n, from 1,
// after the n-th of these times, and the later ones after the last. Negative: never.
type endpoint struct {
	answers    []time.Duration
	fails      map[int32]bool
	begun      atomic.Int32
	open, most atomic.Int32
}

func (e *endpoint) work(ctx context.Context) (string, error) {
	n := e.begun.Add(1)
	if open := e.open.Add(1); open > e.most.Load() {
		e.most.Store(open)
	}
	defer e.open.Add(-1)
	flight.Asked(ctx, "ask", int(n))
	wait := e.answers[min(int(n), len(e.answers))-1]
	if wait < 0 {
		<-ctx.Done()
		return "", ctx.Err()
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(wait):
	}
	if e.fails[n] {
		return "", errWork
	}
	return fmt.Sprint("answer ", n), nil
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestResultReachesAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{3 * time.Second}}
		g := flight.NewGroup[string](t.Context(), limit, true)
		results := make(chan string)
		for i := range 64 {
			go func() {
				time.Sleep(time.Duration(i) * 40 * time.Millisecond) // those who come later, too
				answer, err := g.Do(t.Context(), "", e.work)
				results <- fmt.Sprint(answer, err)
			}()
		}
		start := time.Now()
		for range 64 {
			if got := <-results; got != "answer 1<nil>" {
				t.Error(got)
			}
		}
		if waited := time.Since(start); waited != 3*time.Second || e.begun.Load() != 1 {
			t.Errorf("%d attempts, the last answer after %s", e.begun.Load(), waited)
		}
	})
}

func TestNamesAreWorkOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{time.Second}}
		g := flight.NewGroup[string](t.Context(), limit, true)
		for _, name := range []string{"a", "b"} {
			go g.Do(t.Context(), name, e.work)
		}
		synctest.Wait()
		if e.open.Load() != 2 {
			t.Errorf("%d attempts, want 2", e.open.Load())
		}
		time.Sleep(2 * time.Second)
	})
}

// TestShortCallersOneAfterAnother get an answer that takes longer than each of them
// has.
func TestShortCallersOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{600 * time.Millisecond}}
		g := flight.NewGroup[string](t.Context(), limit, true)
		calls := 1
		for ; calls < 10; calls++ {
			if _, err := g.Do(within(t, 400*time.Millisecond), "", e.work); err == nil {
				break
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if calls != 2 || e.begun.Load() != 1 {
			t.Errorf("answered at call %d by attempt %d", calls, e.begun.Load())
		}
	})
}

// TestNothingPilesUp: 64 callers with 2 seconds each, again and again, at an endpoint
// that does not answer for 40 seconds.
func TestNothingPilesUp(t *testing.T) {
	for name, holds := range map[string]bool{"answers what it held": true, "never answers what it held": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, up := time.Now(), make(chan struct{})
				var open, most atomic.Int32
				work := func(ctx context.Context) (string, error) {
					if n := open.Add(1); n > most.Load() {
						most.Store(n)
					}
					defer open.Add(-1)
					var held <-chan struct{}
					if holds || time.Since(start) >= 40*time.Second {
						held = up
					}
					select {
					case <-held:
						return "answer", nil
					case <-ctx.Done():
						return "", ctx.Err()
					}
				}
				g := flight.NewGroup[string](t.Context(), 30*time.Second, true)
				served := make(chan time.Duration)
				for range 64 {
					go func() {
						for {
							ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
							_, err := g.Do(ctx, "", work)
							cancel()
							if err == nil {
								served <- time.Since(start)
								return
							}
						}
					}()
				}
				time.Sleep(40 * time.Second)
				close(up)
				last := time.Duration(0)
				for range 64 {
					last = max(last, <-served)
				}
				want := 41 * time.Second
				if !holds {
					want = 50 * time.Second
				}
				if last > want || most.Load() > 2 {
					t.Errorf("%d open at a time, the last was served after %s", most.Load(), last)
				}
			})
		})
	}
}

func TestWorkEndsWithoutWaiters(t *testing.T) {
	for name, test := range map[string]struct {
		again time.Duration // when somebody waits again; 0: nobody does
		ends  time.Duration
	}{
		"nobody comes":              {0, 12 * time.Second},
		"somebody comes in time":    {11 * time.Second, 23 * time.Second},
		"somebody comes just after": {12*time.Second + 1, 24*time.Second + 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, start := &endpoint{answers: []time.Duration{-1}}, time.Now()
				g := flight.NewGroup[string](t.Context(), limit, false)
				wait := func() { _, _ = g.Do(within(t, 2*time.Second), "", e.work) }
				wait()
				if test.again != 0 {
					time.Sleep(test.again - time.Since(start))
					go wait()
				}
				time.Sleep(test.ends - time.Since(start) - 1)
				synctest.Wait()
				if e.open.Load() != 1 {
					t.Error("it ended too soon")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if e.open.Load() != 0 {
					t.Error("it goes on")
				}
			})
		})
	}
}

// TestBegunWorkHasItsTime: the owner waits for it.
func TestBegunWorkHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answers: []time.Duration{40 * time.Second}}
		g := flight.NewGroup[string](t.Context(), limit, false)
		g.Begin(t.Context(), "", e.work)
		_, _ = g.Do(within(t, time.Second), "", e.work) // joins, and leaves
		time.Sleep(38 * time.Second)
		if got, err := g.Do(t.Context(), "", e.work); got != "answer 1" || err != nil {
			t.Error(got, err)
		}
	})
}

func TestWorkEndsWithItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancelCause(t.Context())
		e := &endpoint{answers: []time.Duration{-1}}
		g := flight.NewGroup[string](life, limit, true)
		go func() {
			time.Sleep(7 * time.Second)
			end(errWork)
		}()
		start := time.Now()
		if _, err := g.Do(t.Context(), "", e.work); err != errWork || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if _, err := g.Do(t.Context(), "", e.work); err != errWork {
			t.Error(err)
		}
		g.Begin(t.Context(), "", e.work)
		synctest.Wait()
		if e.begun.Load() != 2 || e.open.Load() != 0 {
			t.Errorf("%d attempts, %d open", e.begun.Load(), e.open.Load())
		}
	})
}
