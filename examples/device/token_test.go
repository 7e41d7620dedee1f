// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKeptTokenAndWrongClock: whether the token of the run before is good is told by what
// the issuer says the time is, and not by the clock of this machine, which showed another
// time when the token came.
func TestKeptTokenAndWrongClock(t *testing.T) {
	const metadata = "/.well-known/oauth-authorization-server"
	for name, test := range map[string]struct {
		byDevice, corrected time.Duration // the kept token's end, from now
		issuerAway          bool
		tokens, asked       int // requests of the second run
	}{
		"good":                       {5 * time.Minute, 5 * time.Minute, false, 0, 1},
		"good, the issuer is away":   {5 * time.Minute, 5 * time.Minute, true, 0, 0},
		"clock was behind":           {-30 * 24 * time.Hour, 5 * time.Minute, false, 0, 1},
		"clock was ahead":            {30 * 24 * time.Hour, -5 * time.Minute, false, 1, 1},
		"clock was never set":        {-56 * 365 * 24 * time.Hour, 5 * time.Minute, false, 0, 1},
		"never set, and has expired": {-56 * 365 * 24 * time.Hour, -5 * time.Minute, false, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store = "soft"
			args := w.args("-keys", t.TempDir())
			d := w.start(args...)
			d.calls()
			d.terminates()

			file := filepath.Join(w.state, "token.json")
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var kept map[string]any
			if err := json.Unmarshal(content, &kept); err != nil {
				t.Fatal(err)
			}
			kept["token"].(map[string]any)["expiry"] = time.Now().Add(test.byDevice)
			kept["expiry"] = time.Now().Add(test.corrected)
			if content, err = json.Marshal(kept); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			tokens, asked := w.authServer.count("/token"), w.authServer.count(metadata)
			w.authServer.set(test.issuerAway)
			d = w.start(args...)
			d.calls()
			d.calls()
			if tokens, asked = w.authServer.count("/token")-tokens, w.authServer.count(metadata)-asked; tokens != test.tokens || asked != test.asked {
				t.Errorf("%d token requests and %d for metadata, want %d and %d", tokens, asked, test.tokens, test.asked)
			}
			if n := w.resource.count("/readings"); n != 3 {
				t.Errorf("%d calls, want 3: none is refused", n)
			}
			d.terminates()
		})
	}
}
