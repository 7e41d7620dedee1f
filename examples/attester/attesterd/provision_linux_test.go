// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester"
)

// TestProvisionFullDisk: a disk that has room for the key alone gets neither, so that
// there is no half of a device in the way of the next try.
func TestProvisionFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	files, ek := operatorFiles(t)
	verifier, _, err := files.load(quiet)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingKey("")
	if err != nil {
		t.Fatal(err)
	}
	cfg := attester.Config{Clients: []string{"abca-client"}, Key: key, Evidence: verifier, Logger: slog.New(slog.DiscardHandler)}
	if err := provision(cfg, ek, dir, time.Hour); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}
