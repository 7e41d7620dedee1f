// SPDX-License-Identifier: Apache-2.0

package keyfolder_test

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/keystore"
)

// TestAdvice: what an operator can mend is said.
func TestAdvice(t *testing.T) {
	folder, err := keyfolder.Open("tpm", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for cause, advice := range map[error]string{
		syscall.EACCES: "chown", fs.ErrPermission: "chown", syscall.ENOSPC: "free some room", syscall.EROFS: "mount it for writing",
	} {
		err := folder.Error("device", keystore.ErrUnavailable, &fs.PathError{Op: "open", Path: folder.File("device"), Err: cause})
		if !errors.Is(err, cause) || !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), advice) {
			t.Errorf("%v: %v, want %q", cause, err, advice)
		}
	}
}
