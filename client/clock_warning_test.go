package client_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestClockWarnsOnce: a Date that is not believed comes with each response, and
// an operator needs to be told once what to do.
func TestClockWarnsOnce(t *testing.T) {
	const month, year = 30 * 24 * time.Hour, 365 * 24 * time.Hour
	type step struct {
		device   time.Duration // the device's clock, from the server's
		warnings int           // in all, after three grants
	}
	for name, test := range map[string]struct {
		server time.Duration
		remedy string
		steps  []step
	}{
		"a month ahead":    {year, "set the device's clock", []step{{month, 1}, {month + 3*time.Second, 1}}},
		"a month behind":   {year, "set the device's clock", []step{{-month, 1}}},
		"another month":    {year, "set the device's clock", []step{{month, 1}, {2 * month, 2}, {2 * month, 2}}},
		"right in between": {year, "set the device's clock", []step{{month, 1}, {0, 1}, {-month, 2}}},
		"the server's":     {-10 * year, "the server's clock", []step{{10 * year, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.Attester.Lifetime = 20 * year
			r.clock.advance(test.server)
			var device time.Duration
			var log lockedBuilder
			c := r.client(t, func(cfg *client.Config) {
				cfg.Base = overTLS{dated{inProcess{r}, r.clock.now, 0, ""}}
				cfg.Clock = func() time.Time { return r.clock.now().Add(device) }
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			for i, step := range test.steps {
				device = step.device
				for range 3 {
					_ = grant(t.Context(), c) // refused, by a server that looks at iat
				}
				if n := strings.Count(log.String(), "believed: "+test.remedy); n != step.warnings {
					t.Errorf("step %d: %d warnings with %q, want %d: %s", i, n, test.remedy, step.warnings, log.String())
				}
			}
		})
	}
}
