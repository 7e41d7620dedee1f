// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

func TestAttempts(t *testing.T) {
	const never = -1
	for name, test := range map[string]struct {
		answers []time.Duration
		fails   map[int32]bool
		repeat  bool
		after   time.Duration
		want    string // "" for an error
		begun   int32
	}{
		"the first has time":               {[]time.Duration{12 * time.Second, never}, nil, true, 12 * time.Second, "answer 1", 2},
		"the second at a dead connection":  {[]time.Duration{never, time.Second}, nil, true, 6 * time.Second, "answer 2", 2},
		"the third":                        {[]time.Duration{never, never, 0}, nil, true, 15 * time.Second, "answer 3", 3},
		"the first fails at once":          {[]time.Duration{0, 0}, map[int32]bool{1: true}, true, 0, "", 1},
		"the first fails beside the other": {[]time.Duration{6 * time.Second, 3 * time.Second}, map[int32]bool{1: true}, true, 8 * time.Second, "answer 2", 2},
		"the second fails":                 {[]time.Duration{8 * time.Second, 0}, map[int32]bool{2: true}, true, 8 * time.Second, "answer 1", 2},
		"the second fails, the third":      {[]time.Duration{never, 0, 0}, map[int32]bool{2: true}, true, 15 * time.Second, "answer 3", 3},
		"both fail":                        {[]time.Duration{6 * time.Second, 3 * time.Second}, map[int32]bool{1: true, 2: true}, true, 8 * time.Second, "", 2},
		"time is up":                       {[]time.Duration{never}, nil, true, limit, "", 7},
		"once":                             {[]time.Duration{20 * time.Second}, nil, false, 20 * time.Second, "answer 1", 1},
		"once, time is up":                 {[]time.Duration{never}, nil, false, limit, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, start := &endpoint{answers: test.answers, fails: test.fails}, time.Now()
				got, err := flight.Attempt(t.Context(), limit, func() bool { return test.repeat }, e.work)
				if got != test.want || (err == nil) != (test.want != "") || time.Since(start) != test.after {
					t.Errorf("%q, %v after %s", got, err, time.Since(start))
				}
				synctest.Wait()
				if e.begun.Load() != test.begun || e.most.Load() > 2 || e.open.Load() != 0 {
					t.Errorf("%d attempts, %d at a time, %d left open", e.begun.Load(), e.most.Load(), e.open.Load())
				}
			})
		})
	}
}

// TestAttemptThatIgnoresItsContext does not hold up who waits for it.
func TestAttemptThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		deaf := func(context.Context) (string, error) { <-let; return "", nil }
		start := time.Now()
		if _, err := flight.Attempt(t.Context(), limit, flight.Never, deaf); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > limit+time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		start = time.Now()
		if _, err := flight.Attempt(within(t, time.Second), limit, flight.Never, deaf); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		close(let)
	})
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

// TestExitedAttempt: work that ends its goroutine, as a failed test in a hook does,
// leaves nobody waiting.
func TestExitedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exit := func(context.Context) (string, error) { runtime.Goexit(); return "", nil }
		if _, err := flight.Attempt(t.Context(), limit, flight.Always, exit); err == nil {
			t.Error("no error")
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
