// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestSingleUseIsPutToTheTest: that a server takes each challenge once is believed for an
// hour; then one challenge is sent twice, which costs no request its success.
func TestSingleUseIsPutToTheTest(t *testing.T) {
	learnt := func(t *testing.T) *fixture {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.token(http.StatusOK)
		f.token(http.StatusOK) // is refused first
		f.server.Forget()
		return f
	}
	tokens := func(f *fixture, n int) {
		for range n {
			f.token(http.StatusOK)
		}
	}
	t.Run("single use", func(t *testing.T) {
		f := learnt(t)
		for hour := range 3 {
			f.clock.advance(59 * time.Minute)
			refused := f.server.Refused()
			tokens(f, 5)
			if n := f.server.Refused() - refused; n != 0 {
				t.Errorf("hour %d: %d refusals within the hour", hour, n)
			}
			f.clock.advance(2 * time.Minute)
			tokens(f, 10)
			if n := f.server.Refused() - refused; n != 1 {
				t.Errorf("hour %d: %d refusals after the hour, want 1", hour, n)
			}
		}
	})
	t.Run("it was a bad day", func(t *testing.T) {
		f := learnt(t)
		f.server.Set(func(p *policy) { p.Kind = transporttest.Reusable })
		f.server.Rotate()
		f.token(http.StatusOK)
		f.server.Forget()
		tokens(f, 5)
		f.counts(5, 5)
		f.clock.advance(time.Hour)
		tokens(f, 2)
		f.server.Forget()
		tokens(f, 10)
		f.counts(10, 0)
	})
}
