// SPDX-License-Identifier: Apache-2.0

//go:build unix

package softkey_test

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestNamedPipe: Open does not wait for somebody to write a key.
func TestNamedPipe(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "key.pem"), 0o600); err != nil {
		t.Skipf("cannot make a named pipe here: %v", err)
	}
	wantCorrupt(t, s, dir)
}
