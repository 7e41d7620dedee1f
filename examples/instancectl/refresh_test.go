// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// A refresh token that a server gives once is used and replaced, whoever's turn
// it is, and is never sent with another key.
func TestRefresh(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		s := startServers(t, func(cfg *authserver.Config) { cfg.RefreshTokens = true })
		file := filepath.Join(t.TempDir(), "refresh")
		keys := filepath.Join(t.TempDir(), "keys")
		args := s.token("-store", store, "-keys", keys, "-self", s.self, "-refresh", file)
		ok(t, args...)
		first := readPrivate(t, file)

		lines := tokenLines(t, ok(t, append(args, "-grant", "refresh_token", "-n", "5", "-c", "3")...))
		if len(lines) != 5 {
			t.Errorf("lines %+v", lines)
		}
		if readPrivate(t, file) == first {
			t.Error("the rotated refresh token was not kept")
		}
		ok(t, append(args, "-grant", "refresh_token")...)

		ok(t, "key", "create", "-store", store, "-keys", keys, "-name", "another")
		before, kept := s.Requests(), readPrivate(t, file)
		// The stored token is of a key that there is: none is made beside it.
		r := instancectl(t, append(args, "-name", "misspelt")...)
		if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != "not_found" || s.Requests() != before {
			t.Errorf("status %d, %d requests, %s", r.status, s.Requests()-before, r.stdout)
		}
		if names := ok(t, "key", "list", "-store", store, "-keys", keys); strings.Contains(names.stdout, "misspelt") {
			t.Errorf("a key was made: %s", names.stdout)
		}
		r = instancectl(t, append(args, "-grant", "refresh_token", "-name", "another")...)
		if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != "other_key" {
			t.Errorf("with another key: status %d, lines %+v", r.status, lines)
		}
		if s.Requests() != before || readPrivate(t, file) != kept {
			t.Error("the refresh token was sent with another key, or lost")
		}
	})
}

// A file with the token alone stays one.
func TestRefreshBare(t *testing.T) {
	s := startServers(t, func(cfg *authserver.Config) { cfg.RefreshTokens = true })
	stored := filepath.Join(t.TempDir(), "refresh")
	args := s.token("-store", "soft", "-keys", filepath.Join(t.TempDir(), "keys"), "-self", s.self)
	ok(t, append(args, "-refresh", stored)...)
	_, after, _ := strings.Cut(readPrivate(t, stored), `"refresh_token":"`)
	old, _, _ := strings.Cut(after, `"`)

	bare := writeFile(t, "bare", old+"\n")
	ok(t, append(args, "-refresh", bare, "-grant", "refresh_token", "-n", "2")...)
	if now := readPrivate(t, bare); now == old+"\n" || strings.ContainsAny(now, "{\n ") || now == "" {
		t.Error("the file does not hold a new refresh token alone")
	}

	// Used up: the server's code, and the file as it was.
	if err := os.WriteFile(bare, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	r := instancectl(t, append(args, "-refresh", bare, "-grant", "refresh_token")...)
	if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != "invalid_grant" {
		t.Errorf("status %d, lines %+v", r.status, lines)
	}
	if readPrivate(t, bare) != old {
		t.Error("a refusal has changed the file")
	}
}

// A refresh token is of no use with a key that is made for it, and may be burnt:
// no key is made, and nothing is sent.
func TestRefreshMakesNoKey(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		s := startServers(t, func(cfg *authserver.Config) { cfg.RefreshTokens = true })
		stored := filepath.Join(t.TempDir(), "refresh")
		keys := filepath.Join(t.TempDir(), "keys")
		ok(t, s.token("-store", store, "-keys", keys, "-self", s.self, "-refresh", stored)...)
		before, names := s.Requests(), ok(t, "key", "list", "-store", store, "-keys", keys).stdout

		for _, file := range []string{stored, writeFile(t, "bare", "refresh-token")} {
			r := instancectl(t, s.token("-store", store, "-keys", keys, "-self", s.self, "-name", "another", "-grant", "refresh_token", "-refresh", file, "-n", "2")...)
			if lines := tokenLines(t, r); r.status != 1 || len(lines) != 2 || lines[0].Error != "not_found" || lines[1].Error != "not_found" {
				t.Errorf("status %d, lines %+v", r.status, lines)
			}
		}
		if s.Requests() != before {
			t.Errorf("%d requests", s.Requests()-before)
		}
		if now := ok(t, "key", "list", "-store", store, "-keys", keys).stdout; now != names {
			t.Errorf("keys %q, before %q", now, names)
		}
	})
}
