// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
)

// TestNewestTimeIsKept: what an issuer has said survives a restart with a clock that does
// not.
func TestNewestTimeIsKept(t *testing.T) {
	r := newTimeRig(t, fresh)
	file := filepath.Join(t.TempDir(), "time")
	start := func(off time.Duration) (*client.Timekeeper, *client.Client) {
		keeper := r.keeper(off, func(cfg *client.TimekeeperConfig) { cfg.File = file })
		return keeper, r.client(t, keeper)
	}
	kept := func() time.Time {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	const never = -58 * 365 * day
	_, c := start(never)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	first := r.clock.now()
	if !kept().Equal(first) {
		t.Errorf("kept %s, want %s", kept(), first)
	}
	privatefiletest.Check(t, file)
	r.clock.advance(59 * time.Minute) // not each time
	if err := grant(t.Context(), c); err != nil || !kept().Equal(first) {
		t.Errorf("kept %s, %v, want %s", kept(), err, first)
	}
	r.clock.advance(2 * time.Minute)
	if err := grant(t.Context(), c); err != nil || !kept().Equal(r.clock.now()) {
		t.Errorf("kept %s, %v, want %s", kept(), err, r.clock.now())
	}
	newest := kept()
	keeper, _ := start(never)
	if now := keeper.Now(); now.Before(newest) || now.After(newest.Add(time.Minute)) {
		t.Errorf("after the restart it is %s, want %s", now, newest)
	}
	if now := func() time.Time { k, _ := start(30 * day); return k.Now() }(); !now.After(newest.Add(29 * day)) {
		t.Errorf("a clock that shows more is not believed: %s", now)
	}

	// A server that says an earlier time does not take it back.
	r.clock.advance(-2 * day)
	_, c = start(never)
	if err := grant(t.Context(), c); err != nil || !kept().Equal(newest) {
		t.Errorf("kept %s, %v, want %s", kept(), err, newest)
	}
}

// TestTimekeeperWithoutItsFile: one that is damaged, or whose folder is gone or read-only, is
// said once, and keeps nobody from starting.
func TestTimekeeperWithoutItsFile(t *testing.T) {
	for name, content := range map[string]string{
		"no time": "yesterday", "empty": "", "huge": strings.Repeat("1", 4096), "a year alone": "2028", "binary": "\x00\x01", "no folder": "-",
	} {
		t.Run(name, func(t *testing.T) {
			r := newTimeRig(t, fresh)
			file := filepath.Join(t.TempDir(), "time")
			if content == "-" {
				file = filepath.Join(t.TempDir(), "not", "there")
			} else if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var logged lockedBuilder
			c := r.client(t, r.keeper(-58*365*day, func(cfg *client.TimekeeperConfig) {
				cfg.File, cfg.Logger = file, slog.New(slog.NewTextHandler(&logged, nil))
			}))
			for range 5 {
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				r.clock.advance(2 * time.Hour)
			}
			said, want := logged.String(), "of earlier runs is not known"
			if content == "-" {
				want = "is not kept"
			}
			if n := strings.Count(said, want); n != 1 {
				t.Errorf("said %d times that it %s: %s", n, want, said)
			}
			if _, err := os.ReadFile(file); (err == nil) != (content != "-") {
				t.Error(err)
			}
		})
	}
}
