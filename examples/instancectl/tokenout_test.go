// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTokenOut(t *testing.T) {
	s := startServers(t, nil)
	out := filepath.Join(t.TempDir(), "token")
	ok(t, s.token("-store", "soft", "-self", s.self, "-n", "2", "-out", out)...)
	first := readPrivate(t, out)
	if parts := strings.Split(first, "."); len(parts) != 3 { // the reference server's are JWTs
		t.Errorf("%d bytes that are no access token", len(first))
	}
	ok(t, s.token("-store", "soft", "-self", s.self, "-out", out)...)
	if readPrivate(t, out) == first {
		t.Error("the file was not replaced")
	}
	if r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-scope", "admin", "-out", out)...); r.status != 1 {
		t.Errorf("status %d", r.status)
	}
	if readPrivate(t, out) == "" {
		t.Error("a run without a token has emptied the file")
	}
}

// A device file is written to, not replaced.
func TestTokenOutToDevice(t *testing.T) {
	needsLinks(t)
	s := startServers(t, nil)
	out := filepath.Join(t.TempDir(), "null")
	if err := os.Symlink(os.DevNull, out); err != nil {
		t.Fatal(err)
	}
	ok(t, s.token("-store", "soft", "-self", s.self, "-out", out)...)
	if target, err := os.Readlink(out); err != nil || target != os.DevNull {
		t.Errorf("the link was replaced: %q, %v", target, err)
	}
}
