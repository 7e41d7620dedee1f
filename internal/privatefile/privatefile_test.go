// SPDX-License-Identifier: Apache-2.0

package privatefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// onlyFiles fails the test if a folder holds anything else than these files,
// a temporary one for example.
func onlyFiles(t *testing.T, dir string, wants ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if got, want := strings.Join(names, " "), strings.Join(wants, " "); got != want {
		t.Errorf("folder holds %q, want %q", got, want)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %.40q (%v), want %.40q", path, got, err, want)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%s has mode %v (%v), want 0600", path, info.Mode(), err)
	}
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// symlink makes a symbolic link and reports whether there is one: Wine says so and
// makes none, and Windows wants a privilege.
func symlink(t *testing.T, to, path string) bool {
	t.Helper()
	err := os.Symlink(to, path)
	if _, missing := os.Lstat(path); runtime.GOOS == "windows" && missing != nil {
		t.Logf("no symbolic links here: %v", err)
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first", "", strings.Repeat("x", 1<<20), "last"} {
		if err := privatefile.Replace(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, content)
	}
	write(t, path, "open to all", 0o666)
	if err := privatefile.Replace(path, []byte("private")); err != nil {
		t.Fatal(err)
	}
	wantContent(t, path, "private")
	onlyFiles(t, dir, "file")
}

func TestReplaceDoesNotWriteThroughLinks(t *testing.T) {
	dir := t.TempDir()
	target, link, hard := filepath.Join(dir, "a-target"), filepath.Join(dir, "b-link"), filepath.Join(dir, "c-hard")
	write(t, target, "theirs", 0o600)
	if !symlink(t, target, link) {
		link = hard
	}
	if err := os.Link(target, hard); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, hard} {
		if err := privatefile.Replace(path, []byte("ours")); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is %v (%v), want a plain file", path, info.Mode(), err)
		}
		wantContent(t, path, "ours")
		wantContent(t, target, "theirs")
	}
	if link == hard {
		onlyFiles(t, dir, "a-target", "c-hard")
		return
	}
	onlyFiles(t, dir, "a-target", "b-link", "c-hard")
}

func TestReplaceFailsWithoutTrace(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a-file"), "x", 0o600)
	if err := os.Mkdir(filepath.Join(dir, "b-folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"over a folder":    filepath.Join(dir, "b-folder"),
		"no such folder":   filepath.Join(dir, "missing", "file"),
		"under a file":     filepath.Join(dir, "a-file", "file"),
		"NUL in the name":  filepath.Join(dir, "a\x00b"),
		"name is too long": filepath.Join(dir, strings.Repeat("x", 300)),
	} {
		for how, do := range map[string]func(string, []byte) error{"Replace": privatefile.Replace, "Create": privatefile.Create} {
			t.Run(how+" "+name, func(t *testing.T) {
				if err := do(path, []byte("SECRET")); err == nil || strings.Contains(err.Error(), "SECRET") {
					t.Errorf("error %v", err)
				}
				onlyFiles(t, dir, "a-file", "b-folder")
			})
		}
	}
}

func TestCreateReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := privatefile.Create(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := privatefile.Create(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want fs.ErrExist", err)
	}
	wantContent(t, path, "first")
	link := filepath.Join(dir, "link")
	if !symlink(t, filepath.Join(dir, "nowhere"), link) {
		onlyFiles(t, dir, "file")
		return
	}
	if err := privatefile.Create(link, []byte("x")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a dangling link: %v, want fs.ErrExist", err)
	}
	onlyFiles(t, dir, "file", "link")
}

func TestCreateHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	results := make([]error, 16)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = privatefile.Create(path, []byte{byte('a' + i)}) })
	}
	wg.Wait()
	winner := ""
	for i, err := range results {
		switch {
		case err == nil && winner == "":
			winner = string(rune('a' + i))
		case err == nil:
			t.Error("two have created one file")
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("error %v, want fs.ErrExist", err)
		}
	}
	wantContent(t, path, winner)
	onlyFiles(t, dir, "file")
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on Windows: TestLists is the same there")
	}
	for bit := range 9 {
		extra := fs.FileMode(1) << bit
		others := bit < 6
		t.Run(extra.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "folder")
			if err := privatefile.MakeDir(dir, privatefile.Any); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "file")
			write(t, path, "x", 0o400|extra)
			_, err := privatefile.Read(path, 10)
			if errors.Is(err, privatefile.ErrMode) != others || (err == nil) == others {
				t.Errorf("Read of mode %04o: %v, want ErrMode: %t", 0o400|extra, err, others)
			}
			if err := os.Chmod(dir, 0o700|extra); err != nil {
				t.Fatal(err)
			}
			for forbidden, refused := range map[fs.FileMode]bool{privatefile.Any: others, privatefile.Writing: others && extra&0o222 != 0} {
				for how, check := range map[string]func(string, fs.FileMode) error{"CheckDir": privatefile.CheckDir, "MakeDir": privatefile.MakeDir} {
					err := check(dir, forbidden)
					if errors.Is(err, privatefile.ErrMode) != refused || (err == nil) == refused {
						t.Errorf("%s of mode %04o, forbidden %04o: %v, want ErrMode: %t", how, 0o700|extra, forbidden, err, refused)
					}
					if err != nil && !strings.Contains(err.Error(), dir) {
						t.Errorf("error does not name the folder: %v", err)
					}
				}
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700|extra {
				t.Errorf("the folder's mode was changed to %v (%v)", info.Mode(), err)
			}
		})
	}
}

func TestMakeDir(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "c")
	for range 2 {
		if err := privatefile.MakeDir(dir, privatefile.Any); err != nil {
			t.Fatal(err)
		}
	}
	for path := dir; path != root; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v (%v), want 0700", path, info.Mode(), err)
		}
	}
	file := filepath.Join(root, "file")
	write(t, file, "x", 0o600)
	var nothingToSync error
	if runtime.GOOS == "windows" {
		nothingToSync = errors.ErrUnsupported // no file system there has the operation
	}
	for name, err := range map[string]error{
		"MakeDir over a file":   privatefile.MakeDir(file, privatefile.Any),
		"MakeDir under a file":  privatefile.MakeDir(filepath.Join(file, "x"), privatefile.Any),
		"MakeDir of nothing":    privatefile.MakeDir("", privatefile.Any),
		"CheckDir of a file":    privatefile.CheckDir(file, privatefile.Any),
		"CheckDir of nothing":   privatefile.CheckDir(filepath.Join(root, "none"), privatefile.Any),
		"SyncDir of nothing":    errors.Join(privatefile.SyncDir(filepath.Join(root, "none")), nothingToSync),
		"CheckDir of no folder": privatefile.CheckDir(os.DevNull, privatefile.Any),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	wantContent(t, file, "x")
	if err := privatefile.SyncDir(root); err != nil {
		t.Error(err)
	}
}

func TestTempFilesAreNoKeys(t *testing.T) {
	// What a killed process leaves behind must not look like a key's file.
	if !strings.HasPrefix(privatefile.TempPrefix, ".") || len(privatefile.TempPrefix) < 2 {
		t.Errorf("TempPrefix %q", privatefile.TempPrefix)
	}
}
