// SPDX-License-Identifier: Apache-2.0

// Package privatefiletest is for tests of programs whose files are private, on systems with modes and on Windows alike.
package privatefiletest

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// Check fails the test unless a file has mode 0600, or a folder 0700; on Windows, unless its access control list
// gives others nothing.
func Check(t testing.TB, path string) {
	t.Helper()
	if err := check(path); err != nil {
		t.Error(err)
	}
}

func check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	want := fs.FileMode(0o600)
	if info.IsDir() {
		want = 0o700
		err = privatefile.CheckDir(path, privatefile.Any)
	} else {
		_, err = privatefile.Read(path, 1<<24)
	}
	if got := info.Mode().Perm(); err == nil && got != want && runtime.GOOS != "windows" {
		err = fmt.Errorf("%s has mode %04o, want %04o", path, got, want)
	}
	return err
}

// SetMode gives a file or folder a mode; on Windows it gives everybody the rights that the mode has for others or for
// the group.
func SetMode(t testing.TB, path string, mode fs.FileMode) {
	t.Helper()
	if err := setMode(path, mode); err != nil {
		t.Fatal(err)
	}
}
