// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestTokenAndClockThatIsSet (N9): a token is handed out no longer than it lasts, whatever
// the wall clock shows meanwhile.
func TestTokenAndClockThatIsSet(t *testing.T) {
	// Before 217 seconds nothing is renewed in the background, which would be counted too.
	type step struct {
		set, awake, asleep time.Duration // the clock by; time that passes, the process running or not
		grants             int           // in all, after one more Token
	}
	for name, steps := range map[string][]step{
		"set back":           {{-time.Hour, 0, 0, 2}, {0, 210 * time.Second, 0, 2}, {0, 85 * time.Second, 0, 3}},
		"set back a little":  {{-time.Second, 210 * time.Second, 0, 1}, {0, 85 * time.Second, 0, 2}},
		"set back by a year": {{-365 * 24 * time.Hour, 295 * time.Second, 0, 2}},
		"back, then asleep":  {{-time.Hour, 0, 0, 2}, {0, 0, 295 * time.Second, 3}},
		"back, bit by bit":   {{-100 * time.Second, 100 * time.Second, 0, 1}, {-100 * time.Second, 100 * time.Second, 0, 1}, {-95 * time.Second, 95 * time.Second, 0, 2}},
		"set ahead":          {{time.Hour, 0, 0, 2}, {0, 210 * time.Second, 0, 2}, {0, 85 * time.Second, 0, 3}},
		"ahead, then back":   {{time.Hour, 0, 0, 2}, {-time.Hour, 295 * time.Second, 0, 3}},
		"asleep":             {{0, 0, 210 * time.Second, 1}, {0, 0, 85 * time.Second, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.Set(func(p *transporttest.Policy) { p.Window = 2 * 365 * 24 * time.Hour })
				c := r.client(t)
				age := make(map[string]time.Duration) // of each token
				if first, err := c.Token(t.Context()); err != nil {
					t.Fatal(err)
				} else {
					age[first.AccessToken] = 0
				}
				for i, step := range steps {
					r.clock.advance(step.set + step.awake + step.asleep)
					pass(step.awake)
					for token := range age {
						age[token] += step.awake + step.asleep
					}
					token, err := c.Token(t.Context())
					if err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					if old := age[token.AccessToken]; old > 290*time.Second {
						t.Errorf("step %d: a token of 300 s that is %v old", i, old)
					}
					age[token.AccessToken] += 0
					if n := r.Count(transporttest.Token); n > step.grants {
						t.Errorf("step %d: %d grants, want no more than %d", i, n, step.grants)
					}
				}
			})
		})
	}
}

// TestExpiredTokensAreThrownAway: a program that asks for ever other scopes does not fill
// its memory with tokens that nobody gets again.
func TestExpiredTokensAreThrownAway(t *testing.T) {
	for name, expire := range map[string]func(r *rig){
		"awake":  func(*rig) { pass(295 * time.Second) },
		"asleep": func(r *rig) { r.clock.advance(295 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				c := r.client(t)
				const each = 10
				for range 20 {
					for range each {
						if err := grant(t.Context(), c); err != nil {
							t.Fatal(err)
						}
					}
					expire(r)
				}
				if n := client.KeptTokens(c); n < each || n > 6*each {
					t.Errorf("%d tokens kept, want about the %d that had not expired", n, each)
				}
			})
		})
	}
}

// TestErrorNamesTheClock (N9): a server's clock that has gone further from the device's
// than is followed is the cause of a refusal that does not say so.
func TestErrorNamesTheClock(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for name, test := range map[string]struct {
		off  time.Duration // the server's clock, after it has agreed with the device's
		hint string
	}{
		"8 days behind":  {-8 * 24 * time.Hour, "the device's clock is 192h0m0s ahead of the server's: set the one that is wrong"},
		"a month behind": {-month, "the device's clock is 720h0m0s ahead"},
		"a week ahead":   {7*24*time.Hour + 2*time.Minute, "the device's clock is 168h2m0s behind the server's: set the one that is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimedRig(t)
			r.clock.advance(6 * month)
			c := r.client(t)
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			r.clock.advance(test.off)
			r.device = -test.off
			_, ofToken := c.Token(t.Context(), "other")
			_, ofRefresh := c.Refresh(t.Context(), "refresh")
			for _, err := range []error{ofToken, ofRefresh} {
				var failure *transport.Error
				if !errors.As(err, &failure) || failure.Step != transport.StepAnswer || !strings.Contains(failure.Hint, test.hint) || !strings.Contains(err.Error(), test.hint) {
					t.Errorf("error %v, want one that says %q", err, test.hint)
				}
			}
			r.clock.advance(-test.off)
			r.device = 0
			if err := grant(t.Context(), c); err != nil {
				t.Errorf("with the clock set right: %v", err)
			}
			r.Set(func(p *transporttest.Policy) { p.UnknownClient = true })
			_, err := c.Token(t.Context(), "another")
			var failure *transport.Error
			if !errors.As(err, &failure) || strings.Contains(failure.Hint, "clock is") {
				t.Errorf("error %v, want one that does not blame the clock", err)
			}
		})
	}
}
