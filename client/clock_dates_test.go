// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// datedBefore gives each response the time at which its request was sent, as a server does
// whose answer takes its time.
type datedBefore struct {
	http.RoundTripper
	now   func() time.Time
	delay time.Duration
}

func (d datedBefore) RoundTrip(req *http.Request) (*http.Response, error) {
	date := d.now()
	pass(d.delay)
	resp, err := d.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Header.Set("Date", date.UTC().Format(http.TimeFormat))
	}
	return resp, err
}

// TestSlowAnswerDoesNotMoveTheClock: the Date of an answer that was long on its way says
// roughly what time it is, and a clock that is right within that stays.
func TestSlowAnswerDoesNotMoveTheClock(t *testing.T) {
	for name, test := range map[string]struct{ delay, off, want time.Duration }{
		"right, at once":          {0, 0, 0},
		"right, after 4 s":        {4 * time.Second, 0, -4 * time.Second}, // within what is not told apart
		"right, after 20 s":       {20 * time.Second, 0, 0},
		"a minute fast, at once":  {0, time.Minute, 0},
		"an hour fast, in 20 s":   {20 * time.Second, time.Hour, -20 * time.Second},
		"15 s fast, after 20 s":   {20 * time.Second, 15 * time.Second, -20 * time.Second},
		"15 s behind, after 20 s": {20 * time.Second, -15 * time.Second, -15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				truth := func() time.Time { return r.clock.now() }
				began := time.Now()
				r.now = func() time.Time { return truth().Add(time.Since(began)) }
				keeper := client.NewTimekeeper(client.TimekeeperConfig{Clock: func() time.Time { return r.now().Add(test.off) }})
				c := r.client(t, func(cfg *client.Config) {
					cfg.Clock, cfg.Timekeeper = nil, keeper
					cfg.Base = overTLS{datedBefore{inProcess{r}, func() time.Time { return r.now() }, test.delay}}
				})
				if _, err := c.Endpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := keeper.Now().Sub(r.now()); (got - test.want).Abs() > time.Second {
					t.Errorf("the clock is %v off, want %v", got, test.want)
				}
				pass(time.Minute) // second attempts end
			})
		})
	}
}

// TestFarDateMayBeTakenBack: a Date that the device's clock speaks against is followed, and
// so is the next one: they have not agreed.
func TestFarDateMayBeTakenBack(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	said := 60 * day
	keeper := client.NewTimekeeper(client.TimekeeperConfig{Clock: r.clock.now})
	c := r.client(t, func(cfg *client.Config) {
		cfg.Clock, cfg.Timekeeper = nil, keeper
		cfg.Base = overTLS{dated{inProcess{r}, func() time.Time { return r.clock.now().Add(said) }, 0, ""}}
	})
	for _, said = range []time.Duration{60 * day, 30 * day, 90 * day} {
		resp, err := c.HTTPClient().Get(r.Issuer + "/page")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := keeper.Now().Sub(r.clock.now()); (got - said).Abs() > 2*time.Second {
			t.Errorf("the server says %v later, and the clock is corrected by %v", said, got)
		}
	}
}
