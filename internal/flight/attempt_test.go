// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

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
