// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A timedRig is a rig that tells the right time over TLS, and refuses
// attestations of the future. The process's clock stands still.
type timedRig struct {
	*rig
	device time.Duration // the device's clock, from the right time
}

func newTimedRig(t *testing.T) *timedRig {
	r := &timedRig{rig: newRig(t, transporttest.Policy{})}
	r.Set(func(p *transporttest.Policy) {
		p.Intercept = func(w http.ResponseWriter, request transporttest.Request) bool {
			attestation := transporttest.ParseProof(request.Attestation())
			if attestation == nil || attestation.IssuedAt <= r.now().Unix() {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_client"}`)
			return true
		}
	})
	r.selfAttest()
	return r
}

// selfAttest makes the attester one in the instance, which has no clock of its
// own.
func (r *timedRig) selfAttest() {
	r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		return r.issue(req, req.Clock()), nil
	})
}

func (r *timedRig) issue(req client.AttestRequest, now time.Time) string {
	return r.Attester.Attest(req.Key.Public(), func(claims map[string]any) {
		claims["iat"], claims["exp"] = now.Unix(), now.Add(5*time.Minute).Unix()
	})
}

func (r *timedRig) client(t *testing.T, edits ...func(*client.Config)) *client.Client {
	t.Helper()
	return r.rig.client(t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Base = overTLS{dated{inProcess{r.rig}, r.clock.now, 0, ""}}
		cfg.Clock = func() time.Time { return r.clock.now().Add(r.device) }
	}}, edits...)...)
}

// told gives the Client metadata, so that no response has told the time before
// the attestation is made.
func (r *timedRig) told(cfg *client.Config) {
	cfg.Metadata = &client.Metadata{Issuer: r.Issuer, TokenEndpoint: r.Endpoint(transporttest.Token), ChallengeEndpoint: r.Endpoint(transporttest.Challenge)}
}

// refused returns how many of three grants fail.
func (r *timedRig) refused(t *testing.T, c *client.Client) (n int) {
	t.Helper()
	for range 3 {
		if grant(t.Context(), c) != nil {
			n++
		}
	}
	return n
}

const never = -56 * 365 * 24 * time.Hour // set

// TestClockSteps: a clock that has been corrected is set right, or wrong, or runs
// on while the device sleeps. A server has to say so once at most.
func TestClockSteps(t *testing.T) {
	for name, test := range map[string]struct {
		before, after  time.Duration // the device's clock, from the right time
		asleep         time.Duration // between them
		refused, calls int           // requests, and of the attester, at most: metadata that seems old is renewed meanwhile, and teaches too
	}{
		"no step":                               {},
		"set right, was behind":                 {before: -3 * time.Hour},
		"set right, was ahead":                  {before: 3 * time.Hour},
		"set right, was days ahead":             {before: 6 * 24 * time.Hour},
		"set right, was never set":              {before: never},
		"set right by a slow server's time":     {before: -3 * time.Hour, after: 4 * time.Second},
		"set to the minute":                     {before: -3 * time.Hour, after: -time.Minute, refused: 1, calls: 2},
		"set to the minute, was never set":      {before: never, after: time.Minute, refused: 1, calls: 2},
		"set right while asleep":                {before: -3 * time.Hour, asleep: time.Hour, refused: 1, calls: 2},
		"set ahead":                             {after: 2 * time.Hour, refused: 1, calls: 2},
		"set back":                              {after: -2 * time.Hour, refused: 1, calls: 2},
		"set back by days":                      {after: -6 * 24 * time.Hour, refused: 1, calls: 2},
		"reset":                                 {after: never, refused: 1, calls: 2},
		"asleep, right":                         {asleep: 8 * time.Hour, calls: 1},
		"asleep, behind":                        {before: -3 * time.Hour, after: -3 * time.Hour, asleep: 8 * time.Hour, calls: 1},
		"asleep, ahead":                         {before: 3 * time.Hour, after: 3 * time.Hour, asleep: 8 * time.Hour, calls: 1},
		"asleep, never set":                     {before: never, after: never, asleep: 8 * time.Hour, calls: 1},
		"asleep for as long as it was behind":   {before: -3 * time.Hour, after: -3 * time.Hour, asleep: 3 * time.Hour, refused: 1, calls: 1},
		"asleep for a moment":                   {before: -3 * time.Hour, after: -3 * time.Hour, asleep: time.Minute},
		"asleep for a moment, by a right clock": {asleep: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimedRig(t)
			r.device = test.before
			c := r.client(t)
			if n := r.refused(t, c); n != 0 {
				t.Fatalf("%d refused before the step", n)
			}
			r.clock.advance(test.asleep)
			r.device = test.after
			if n := r.refused(t, c); n > test.refused {
				t.Errorf("%d of 3 refused, want %d at most", n, test.refused)
			}
			if n := r.refused(t, c); n != 0 {
				t.Errorf("%d of the next 3 refused", n)
			}
			if n := len(r.attester.calls()) - 1; n > test.calls {
				t.Errorf("attester asked %d times after the step, want %d at most", n, test.calls)
			}
		})
	}
}

// TestClockIsLearntAfterAttesting: what was made by the wrong clock is not used
// on, nor after a restart; what an attester elsewhere has made is.
func TestClockIsLearntAfterAttesting(t *testing.T) {
	for name, test := range map[string]struct {
		device  time.Duration
		remote  bool
		refused int
		calls   int
	}{
		"right":               {0, false, 0, 1},
		"ahead":               {10 * time.Minute, false, 1, 2},
		"days ahead":          {6 * 24 * time.Hour, false, 1, 2},
		"behind":              {-10 * time.Minute, false, 1, 2},
		"days behind":         {-6 * 24 * time.Hour, false, 1, 2},
		"never set":           {never, false, 1, 2},
		"ahead, remote":       {4 * time.Minute, true, 0, 1},
		"days ahead, remote":  {6 * 24 * time.Hour, true, 0, 1},
		"behind, remote":      {-10 * time.Minute, true, 0, 1},
		"days behind, remote": {-6 * 24 * time.Hour, true, 0, 1},
		"never set, remote":   {never, true, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimedRig(t)
			r.device = test.device
			if test.remote {
				r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
					return r.issue(req, r.clock.now()), nil
				})
			}
			cache := newMemoryCache()
			c := r.client(t, r.told, func(cfg *client.Config) { cfg.Cache = cache })
			if n := r.refused(t, c); n != test.refused {
				t.Errorf("%d of 3 refused, want %d", n, test.refused)
			}
			if n := r.refused(t, c); n != 0 {
				t.Errorf("%d of the next 3 refused", n)
			}
			if n := len(r.attester.calls()); n != test.calls {
				t.Errorf("attester asked %d times, want %d", n, test.calls)
			}
			if n := r.refused(t, r.client(t, func(cfg *client.Config) { cfg.Cache = cache })); n != 0 {
				t.Errorf("%d of 3 refused after a restart", n)
			}
		})
	}
}

// TestClockAndCachedAttestation: an attestation of the future was made by a wrong
// clock, or the clock is wrong now.
func TestClockAndCachedAttestation(t *testing.T) {
	for name, test := range map[string]struct {
		made, now time.Duration // the device's clock, from the right time
		refused   int
		calls     int // of the attester, after the restart
		asked     int // for the time
	}{
		"right, right":  {0, 0, 0, 0, 0},
		"ahead, right":  {10 * time.Minute, 0, 0, 1, 1},
		"days, right":   {6 * 24 * time.Hour, 0, 0, 1, 1},
		"behind, right": {-10 * time.Minute, 0, 0, 1, 0},
		"right, behind": {0, -10 * time.Minute, 0, 0, 1},
		"right, never":  {0, never, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimedRig(t)
			cache := newMemoryCache()
			restart := func(device time.Duration) *client.Client {
				r.device = device
				return r.client(t, r.told, func(cfg *client.Config) { cfg.Cache = cache })
			}
			_ = grant(t.Context(), restart(test.made)) // which teaches, and ends
			calls, asked := len(r.attester.calls()), r.Count(transporttest.Metadata)
			if n := r.refused(t, restart(test.now)); n != test.refused {
				t.Errorf("%d of 3 refused, want %d", n, test.refused)
			}
			if n := len(r.attester.calls()) - calls; n != test.calls {
				t.Errorf("attester asked %d times, want %d", n, test.calls)
			}
			if n := r.Count(transporttest.Metadata) - asked; n != test.asked {
				t.Errorf("issuer asked for the time %d times, want %d", n, test.asked)
			}
		})
	}
}

// TestClockSetBackWhileAttesting: NTP comes up while the attester works.
func TestClockSetBackWhileAttesting(t *testing.T) {
	r := newTimedRig(t)
	r.device = 10 * time.Minute
	r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		defer func() { r.device = 0 }()
		return r.issue(req, req.Clock()), nil
	})
	c := r.client(t, r.told)
	if n := r.refused(t, c); n != 1 {
		t.Errorf("%d of 3 refused, want the first", n)
	}
	if n := len(r.attester.calls()); n != 2 {
		t.Errorf("attester asked %d times, want 2", n)
	}
}
