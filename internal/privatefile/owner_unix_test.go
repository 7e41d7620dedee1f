// SPDX-License-Identifier: Apache-2.0

//go:build unix

package privatefile_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile"
)

const nobody = 65534

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to others")
	}
}

func owner(t *testing.T, path string) (uid, gid uint32, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return stat.Uid, stat.Gid, info.Mode().Perm()
}

// TestOwnerIsKept: what root replaces belongs to whom it belonged, and what it makes
// to the owner of the folder.
func TestOwnerIsKept(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, nobody, nobody-1); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for _, tt := range []struct {
		uid, gid uint32
		mode     fs.FileMode
	}{{nobody, nobody, 0o600}, {nobody, 1, 0o400}, {0, nobody, 0o600}, {0, 0, 0o700}} {
		write(t, path, "old", tt.mode)
		if err := os.Chown(path, int(tt.uid), int(tt.gid)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := privatefile.Replace(path, []byte("new")); err != nil {
			t.Fatal(err)
		}
		if uid, gid, mode := owner(t, path); uid != tt.uid || gid != tt.gid || mode != tt.mode {
			t.Errorf("the file belongs to %d:%d with mode %o, want %d:%d with %o", uid, gid, mode, tt.uid, tt.gid, tt.mode)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, write := range []func(string, []byte) error{privatefile.Create, privatefile.Replace} {
		if err := write(path, []byte("new")); err != nil {
			t.Fatal(err)
		}
		if uid, gid, mode := owner(t, path); uid != nobody || gid != nobody-1 || mode != 0o600 {
			t.Errorf("a new file belongs to %d:%d with mode %o, want the folder's owner", uid, gid, mode)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOwnerCannotBeKept: the file stays as it is, and nothing is left beside it.
func TestOwnerCannotBeKept(t *testing.T) {
	needsRoot(t)
	dir, err := os.MkdirTemp("/tmp", "owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	write(t, path, "root's", 0o600)
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "program") // where nobody can run it
	if err := os.WriteFile(binary, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), oneWriter+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "belongs to user 0") {
		t.Errorf("%v: %s", err, out)
	}
	onlyFiles(t, dir, "file", "program")
	if content, err := os.ReadFile(path); err != nil || string(content) != "root's" {
		t.Errorf("the file says %q, %v", content, err)
	}
}

// TestPlantedFile: what root writes in place of a file that another user has put into
// a folder that anybody may write to is not given to that user.
func TestPlantedFile(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, tt := range []struct {
		mode    fs.FileMode // of the folder
		folder  int         // its owner
		file    int
		refused bool
	}{
		{0o777 | fs.ModeSticky, 0, nobody, true}, {0o777, 0, nobody, true}, {0o770, 0, nobody, true}, {0o777, nobody - 1, nobody, true},
		{0o777 | fs.ModeSticky, 0, 0, false}, {0o777, nobody, nobody, false}, {0o755, 0, nobody, false}, {0o700, 0, nobody, false}, {0o777, nobody, 0, false},
	} {
		write(t, path, "planted", 0o600)
		if err := errors.Join(os.Chown(path, tt.file, tt.file), os.Chown(dir, tt.folder, tt.folder), os.Chmod(dir, tt.mode)); err != nil {
			t.Fatal(err)
		}
		err := privatefile.Replace(path, []byte("SECRET"))
		if errors.Is(err, fs.ErrPermission) != tt.refused || (err == nil) == tt.refused {
			t.Errorf("%+v: %v", tt, err)
		}
		want := "SECRET"
		if tt.refused {
			want = "planted"
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != want {
			t.Errorf("%+v: it holds %q, %v", tt, content, err)
		}
		if uid, _, _ := owner(t, path); int(uid) != tt.file {
			t.Errorf("%+v: it belongs to %d", tt, uid)
		}
		onlyFiles(t, dir, "file")
	}
}
