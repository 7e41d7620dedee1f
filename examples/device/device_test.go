// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
)

// TestLife takes a device through everything, in the order of a bad year.
func TestLife(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		w := newWorld(t)
		w.store = c.store
		tokens := func(want int) {
			t.Helper()
			if n := w.authServer.count("/token"); n != want {
				t.Errorf("%d token requests, want %d", n, want)
			}
		}
		attestations := func(want int) {
			t.Helper()
			if n := w.attester.count("/client-attestation"); n != want {
				t.Errorf("%d attestations, want %d", n, want)
			}
		}
		called := func(want int) {
			t.Helper()
			if n := w.resource.count("/readings"); n != want {
				t.Errorf("%d calls, want %d", n, want)
			}
		}

		// Boot, with nothing there.
		w.network(false)
		if c.stop != nil {
			c.stop()
		}
		d := w.start(w.args()...)
		if c.stop != nil {
			d.fails(1)
			d.fails(2)
			c.restart()
		}
		for n := range 4 {
			d.fails(n + 1)
		}
		w.attester.set(false) // one after the other comes up
		d.fails(5)
		w.authServer.set(false)
		d.fails(6)
		tokens(1)
		w.resource.set(false)
		d.calls()
		tokens(1)
		attestations(1)
		called(1)

		// The attester goes away: nobody needs it, also for a new token.
		w.attester.set(true)
		d.calls()
		w.refuse()
		d.calls()
		called(4) // one of them was refused
		tokens(2)

		// The authorization server goes away when a token is needed, and later
		// comes back.
		w.authServer.set(true)
		d.calls()
		w.refuse()
		d.fails(1)
		d.fails(2)
		w.authServer.set(false)
		d.calls()
		called(7) // the token was refused once, and was then gone
		tokens(3)

		// All of the network.
		w.network(false)
		d.fails(1) // and counts from the beginning
		d.fails(2)
		w.network(true)
		d.calls()
		called(8)
		tokens(3)

		// The TPM is reset, twice, and nobody notices.
		for range 2 {
			c.restart()
			d.calls()
		}
		called(10)

		// SIGTERM.
		d.terminates()
		c.leftNothing(t)
		w.keepsToken()
		attestations(1)

		// A restart, and only the resource is there: token and attestation
		// were kept.
		w.network(false)
		w.resource.set(false)
		d = w.start(w.args()...)
		d.calls()
		called(11)
		w.network(true)
		if n := w.instances(); n != 1 {
			t.Errorf("%d keys until now, want 1", n)
		}

		// The TPM is another one: the key is lost.
		c.replace()
		d.ends(statusKeyLost)
		if log := d.log.String(); !strings.Contains(log, "-re-enrol") {
			t.Errorf("it says: %s", log)
		}
		c.leftNothing(t)
		w.keepsToken() // nothing was thrown away
		d = w.start(w.args()...)
		d.ends(statusKeyLost) // at the start as well
		c.leftNothing(t)
		called(11)
		tokens(3)
		attestations(1)

		// The operator wants it to enrol anew, and it does so while it runs,
		// too.
		d = w.start(w.args("-re-enrol")...)
		d.calls()
		tokens(4)
		attestations(2)
		c.replace()
		w.authServer.set(true)
		d.fails(1)
		if _, err := os.Stat(filepath.Join(w.state, "token.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the lost key's token is still there: %v", err)
		}
		w.authServer.set(false)
		d.calls()
		tokens(5)
		attestations(3)
		called(13)
		if n := w.instances(); n != 3 {
			t.Errorf("%d keys until now, want 3", n)
		}
		d.terminates()
		c.leftNothing(t)
		if log := d.log.String(); strings.Contains(log, w.last) || startOfJWT.MatchString(log) {
			t.Error("a token or JWT is in the log")
		}
	})
}

// startOfJWT is the beginning of a JOSE header in base64url, and not what a thumbprint may
// have inside.
var startOfJWT = regexp.MustCompile(`(^|[^A-Za-z0-9_-])eyJ`)

// keepsToken checks that what is on the disk is whole and for nobody else.
func (w *world) keepsToken() {
	w.t.Helper()
	file := filepath.Join(w.state, "token.json")
	stored, err := client.ReadStoredToken(file)
	if err != nil || stored.Token.AccessToken != w.last || stored.Token.RefreshToken == "" {
		w.t.Errorf("stored token: %v, the last one used: %t", err, err == nil && stored.Token.AccessToken == w.last)
	}
	err = filepath.WalkDir(w.state, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			privatefiletest.Check(w.t, path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	if leftovers, _ := filepath.Glob(filepath.Join(w.state, "*.tmp*")); len(leftovers) > 0 {
		w.t.Errorf("left over: %q", leftovers)
	}
}

// TestStoredTokenOfAnother: a token that is damaged, or another key's, is not
// sent, and is replaced.
func TestStoredTokenOfAnother(t *testing.T) {
	for name, content := range map[string]string{
		"damaged":   `{"issuer":`,
		"empty":     "",
		"other key": `{"issuer":"https://as.example.com","client_id":"meter","jkt":"x","token":{"access_token":"stolen","refresh_token":"stolen","expiry":"2099-01-01T00:00:00Z"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store = "soft"
			if err := os.MkdirAll(w.state, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(w.state, "token.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d := w.start(w.args()...)
			d.calls()
			if w.last == "stolen" || w.authServer.count("/token") != 1 {
				t.Errorf("token %s, %d token requests", w.last, w.authServer.count("/token"))
			}
			w.keepsToken()
			d.terminates()
		})
	}
}
