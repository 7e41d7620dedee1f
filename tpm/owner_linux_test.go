// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// TestRootTakesNoFiles: whatever an administrator does with the keys of a service as
// root, the service can use all files of its folder afterwards.
func TestRootTakesNoFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others")
	}
	const nobody = 65534
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	if err := os.Chown(r.config.Dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		count := 0
		err := filepath.WalkDir(r.config.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			stat := info.Sys().(*syscall.Stat_t)
			if stat.Uid != nobody || stat.Gid != nobody || !d.IsDir() && info.Mode().Perm() != 0o600 {
				t.Errorf("after %s, %s belongs to %d:%d with mode %o", what, path, stat.Uid, stat.Gid, info.Mode().Perm())
			}
			count++
			return nil
		})
		if err != nil || count < 2 {
			t.Errorf("after %s: %d files, %v", what, count, err)
		}
	}
	create(t, r.Store, "made", tpm.KeyOptions{})
	check("Create")
	path := put(t, r, "key", foreignKey{emptyAuth: false}.file(t, sim)) // the flag is wrong
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	key := open(t, r.Store, "key")
	check("Open")
	sign(t, key)
	if describe(t, r.Store, "key").ParentName == nil {
		t.Error("nothing was noted")
	}
	check("Sign")
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	check("Persist")
	if err := r.Unpersist(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	check("Unpersist")
	setChain(t, key, "https://attester.example", issueCA(t))
	check("SetAKCertificates")
}
