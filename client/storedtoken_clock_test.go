// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestStoredTokenAndWrongClock: how long a kept token is good follows from what the issuer
// says the time is, in the run that got it and in the one that finds it. golang.org/x/oauth2
// goes by the machine's clock alone, which in the bubble is years behind.
func TestStoredTokenAndWrongClock(t *testing.T) {
	const life = 300 * time.Second
	for name, test := range map[string]struct {
		passes, shows time.Duration // between the runs, in truth and by the machine's clock
		valid         bool
	}{
		"at once":                        {0, 0, true},
		"both go on":                     {2 * time.Minute, 2 * time.Minute, true},
		"both go on, expired":            {6 * time.Minute, 6 * time.Minute, false},
		"clock stands still":             {2 * time.Minute, 0, true},
		"clock stands still, expired":    {6 * time.Minute, 0, false},
		"clock stands still for a month": {30 * day, 0, false},
		"clock is set ahead":             {2 * time.Minute, 10 * time.Minute, true},
		"clock is set ahead by years":    {2 * time.Minute, 3 * 365 * day, true},
		"clock is set ahead, expired":    {6 * time.Minute, 10 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				began, truth := time.Now(), r.clock.now()
				r.now = func() time.Time { return truth.Add(time.Since(began)) }
				r.Attester.Lifetime = 90 * day
				start := func() *client.Client {
					return r.client(t, func(cfg *client.Config) {
						cfg.Clock, cfg.Base = nil, overTLS{dated{inProcess{r}, func() time.Time { return r.now() }, 0, ""}}
					})
				}
				before := start()
				_, stored := boundToken(t, before)
				file := filepath.Join(t.TempDir(), "token")
				if err := stored.Write(file); err != nil {
					t.Fatal(err)
				}
				before.Close()

				pass(test.shows)
				truth = truth.Add(test.passes - test.shows)
				stored, err := client.ReadStoredToken(file)
				if err != nil {
					t.Fatal(err)
				}
				after := start()
				if _, err := after.Endpoint(t.Context()); err != nil { // says what time it is
					t.Fatal(err)
				}
				for range 2 { // and what has been adopted can be bound again
					adopted, err := after.Adopt(stored)
					if err != nil {
						t.Fatal(err)
					}
					left := time.Until(adopted.Expiry)
					if want := life - test.passes; adopted.Valid() != test.valid || (left-want).Abs() > 3*time.Second {
						t.Errorf("valid %t, for %v; want %t, for %v", adopted.Valid(), left, test.valid, want)
					}
					if stored, err = after.Bind(adopted); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestAdoptFollowsTheClock: what is adopted anew has the end that fits the clock as it is
// corrected by then, and a token without an end has none.
func TestAdoptFollowsTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		_, stored := boundToken(t, c)
		for _, step := range []struct {
			passes time.Duration
			left   time.Duration
		}{{0, 300 * time.Second}, {time.Minute, 240 * time.Second}, {time.Hour, -3360 * time.Second}, {-time.Hour, 240 * time.Second}} {
			r.clock.advance(step.passes)
			adopted, err := c.Adopt(stored)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(adopted.Expiry); (left - step.left).Abs() > 3*time.Second {
				t.Errorf("after %v: %v left, want %v", step.passes, left, step.left)
			}
		}
		endless, err := c.Bind(&oauth2.Token{AccessToken: "a"})
		if err != nil {
			t.Fatal(err)
		}
		r.clock.advance(365 * day)
		if adopted, err := c.Adopt(endless); err != nil || !adopted.Valid() || !adopted.Expiry.IsZero() {
			t.Errorf("a token without an end: %v, %v", adopted.Expiry, err)
		}
	})
}

// TestKeptTokenSaysWhenItExpires by the machine's clock as it is now, which others compare
// with.
func TestKeptTokenSaysWhenItExpires(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		for _, asleep := range []time.Duration{0, 100 * time.Second, 110 * time.Second} {
			r.clock.advance(asleep)
			token, err := c.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			age := r.clock.now().Sub(newTestClock().now())
			if left := time.Until(token.Expiry); left != 300*time.Second-age {
				t.Errorf("a token of 300 s that is %v old is good for %v", age, left)
			}
		}
		if n := r.Count(transporttest.Token); n != 1 {
			t.Errorf("%d grants, want 1", n)
		}
	})
}
