// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestDisk: a full disk and a read-only file system give errors and lose
// nothing.
func TestDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	sim := tpmtest.Simulator(t)
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	r := newRig(t, sim, func(c *tpm.Config) { c.Dir = dir })
	create(t, r.Store, "key", tpm.KeyOptions{})
	before, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(cause error, advice string) {
		t.Helper()
		_, err := r.Create(t.Context(), "other")
		for _, err := range []error{err, r.Persist(t.Context(), "key", handle)} {
			if wantError(t, err, keystore.ErrUnavailable, cause); !strings.Contains(err.Error(), advice) {
				t.Errorf("%q does not say %q", err, advice)
			}
		}
		if n := len(persistent(t, sim)); n != 0 {
			t.Errorf("%d persistent keys", n)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, entry := range entries {
			if entry.Name() != "key.pem" && entry.Name() != "filler" {
				t.Errorf("%s was left", entry.Name())
			}
		}
		after, err := os.ReadFile(filepath.Join(dir, "key.pem"))
		if err != nil || string(after) != string(before) {
			t.Errorf("the key file has changed: %v", err)
		}
		sign(t, open(t, r.Store, "key"))
	}

	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if err := errors.Join(filler.Close()); err != nil {
		t.Fatal(err)
	}
	check(syscall.ENOSPC, "free some room")
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}

	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	check(syscall.EROFS, "mount it for writing")
	wantError(t, r.Delete(t.Context(), "key"), keystore.ErrUnavailable, syscall.EROFS)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	sign(t, create(t, r.Store, "other", tpm.KeyOptions{}))
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
}

// TestFIFO: what waits for a writer is not read.
func TestFIFO(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	if err := syscall.Mkfifo(filepath.Join(r.config.Dir, "key.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := r.Open(t.Context(), "key")
	wantError(t, err, keystore.ErrCorrupt)
	_, err = r.Create(t.Context(), "key")
	wantError(t, err, keystore.ErrExists)
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

// TestDeleteUnreadable: a file that its folder's owner cannot read is not deleted, since
// it may name a persistent handle.
func TestDeleteUnreadable(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files to others")
	}
	const nobody = 65534
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{r.config.Dir, filepath.Dir(r.config.Dir)} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	err := r.Delete(t.Context(), "key")
	if _, back := unix.SetfsuidRetUid(0); back != nil {
		t.Fatal(back)
	}
	if wantError(t, err, keystore.ErrUnavailable, syscall.EACCES); !strings.Contains(err.Error(), "chown") {
		t.Errorf("%q does not say what to do", err)
	}
	if names, _ := r.List(t.Context()); len(names) != 1 || len(persistent(t, sim)) != 1 {
		t.Errorf("left are the files %q and %d persistent keys", names, len(persistent(t, sim)))
	}
	if err := r.Delete(t.Context(), "key"); err != nil || len(persistent(t, sim)) != 0 {
		t.Errorf("Delete: %v", err)
	}
}
