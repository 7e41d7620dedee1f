// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
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
		off      time.Duration // the server's clock, from the right time
		warnings int           // in all, after three grants
	}
	for name, test := range map[string]struct {
		device time.Duration // the device's clock, from the right time
		remedy string
		steps  []step
	}{
		"a month ahead":             {0, "and is not believed: the server's clock is wrong", []step{{0, 0}, {month, 1}, {month + 3*time.Second, 1}}},
		"a month behind":            {0, "and is not believed: the server's clock is wrong", []step{{0, 0}, {-month, 1}}},
		"another month":             {0, "and is not believed: the server's clock is wrong", []step{{0, 0}, {month, 1}, {2 * month, 2}, {2 * month, 2}}},
		"right in between":          {0, "and is not believed: the server's clock is wrong", []step{{0, 0}, {month, 1}, {0, 1}, {-month, 2}}},
		"before the release":        {0, "version of the package, and is not believed: the server's clock is wrong", []step{{-10 * year, 1}}},
		"never right":               {0, "is corrected for", []step{{month, 1}, {month, 1}, {0, 2}}},
		"the device's":              {-month, "is corrected for", []step{{0, 1}, {0, 1}, {month, 2}, {0, 3}}},
		"the device's, and a day's": {month, "is corrected for", []step{{0, 1}, {24 * time.Hour, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.Attester.Lifetime = 20 * year
			r.clock.advance(year)
			var off time.Duration
			var log lockedBuilder
			c := r.client(t, func(cfg *client.Config) {
				cfg.Base = overTLS{dated{inProcess{r}, func() time.Time { return r.clock.now().Add(off) }, 0, ""}}
				cfg.Clock = func() time.Time { return r.clock.now().Add(test.device) }
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			for i, step := range test.steps {
				off = step.off
				for range 3 {
					_ = grant(t.Context(), c) // refused, by a server that looks at iat
				}
				if n := strings.Count(log.String(), test.remedy); n != step.warnings {
					t.Errorf("step %d: %d warnings with %q, want %d: %s", i, n, test.remedy, step.warnings, log.String())
				}
			}
		})
	}
}

// shipping is a handler that sends each record on, through the Client that logs it.
type shipping struct {
	slog.Handler
	client *client.Client
	sent   atomic.Int64
}

func (s *shipping) Handle(context.Context, slog.Record) error {
	resp, err := s.client.HTTPClient().Get("https://logs.example.com/")
	if err != nil {
		return err
	}
	s.sent.Add(1)
	return resp.Body.Close()
}

// TestLogHandlerUsesClient: nothing is locked while something is logged, so that a
// handler can use the Client, and one that hangs keeps nobody else.
func TestLogHandlerUsesClient(t *testing.T) {
	r := newRig(t, transporttest.Policy{Window: 24 * time.Hour})
	var device time.Duration
	handler := &shipping{Handler: slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})}
	handler.client = r.client(t, func(cfg *client.Config) {
		cfg.Base = overTLS{dated{inProcess{r}, r.clock.now, 0, ""}}
		cfg.Clock = func() time.Time { return r.clock.now().Add(device) }
		cfg.Logger = slog.New(handler)
	})
	done := make(chan error, 1)
	go func() {
		err := grant(t.Context(), handler.client)
		device = -time.Hour // the device's clock is set back
		for range 2 {
			err = errors.Join(err, grant(t.Context(), handler.client))
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the Client hangs")
	}
	if handler.sent.Load() == 0 {
		t.Error("nothing was logged")
	}
}
