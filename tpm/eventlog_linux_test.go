// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/instancekey/instancekey/tpm"
)

// TestLockedLog: a log is not read while systemd, which locks it, writes to it.
func TestLockedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := syscall.Flock(int(writer.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if log, err := tpm.ReadEventLog(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is locked: %q, %v", log, err)
	}
	written := make(chan struct{})
	defer func() { <-written }()
	time.AfterFunc(30*time.Millisecond, func() {
		defer close(written)
		_, _ = writer.WriteString(" and whole")
		_ = syscall.Flock(int(writer.Fd()), syscall.LOCK_UN)
	})
	if log, err := tpm.ReadEventLog(t.Context(), path); err != nil || string(log) != "half and whole" {
		t.Errorf("afterwards: %q, %v", log, err)
	}
}
