// SPDX-License-Identifier: Apache-2.0

package freshness

import (
	"sync"
	"time"
)

// reordered is how far a reading of a clock may be behind another one that was
// taken at the same time by another goroutine.
const reordered = time.Second

// Monotone returns a clock that follows now, but never goes back: when now is set
// back it goes on from where it was. With it a challenge whose lifetime has passed
// stays expired. Whatever judges the age of a value and whatever remembers that
// the value was used must have the same Monotone clock. It is safe for concurrent
// use if now is.
func Monotone(now func() time.Time) func() time.Time {
	var mu sync.Mutex
	last := now()
	told := last
	return func() time.Time {
		current := now()
		mu.Lock()
		defer mu.Unlock()
		switch step := current.Sub(last); {
		case step > 0:
			told, last = told.Add(step), current
		case step < -reordered:
			last = current
		}
		return told
	}
}
