// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

func skipOnWindows(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such file modes: TestWindowsLists is the same there")
	}
}

// write puts a file into dir, which it makes, as a key file has to be.
func write(t testing.TB, dir, file string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// files returns the names of all that is in dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestFileLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	s := openDir(t, dir)
	if _, err := s.Create(t.Context(), "a.b"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"a.b.pem"}) {
		t.Fatalf("files %q, want a.b.pem alone", got)
	}
	text := read(t, dir, "a.b.pem")
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" || len(block.Headers) != 0 || len(rest) != 0 || text[0] != '-' {
		t.Errorf("the file is not one PKCS#8 block")
	}
	if runtime.GOOS == "windows" {
		return
	}
	for path, want := range map[string]fs.FileMode{
		dir:                           fs.ModeDir | 0o700,
		filepath.Dir(dir):             fs.ModeDir | 0o700,
		filepath.Join(dir, "a.b.pem"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

// TestFilesOfOpenSSL: what "openssl genpkey" writes can be put into the folder.
func TestFilesOfOpenSSL(t *testing.T) {
	dir := newDir(t)
	for curve, algorithm := range map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"} {
		name := strings.ToLower(curve) // on Windows, a file's letters are those of a key in lower case
		write(t, dir, name+".pem", read(t, "testdata", "openssl-"+curve+".pem"))
		key, err := openDir(t, dir).Open(t.Context(), name)
		if err != nil || key.Algorithm() != algorithm {
			t.Errorf("Open(%s) = %v, %v, want a key for %s", name, key, err, algorithm)
		}
	}
}

func TestOpenDirRefuses(t *testing.T) {
	if s, err := softkey.OpenDir(""); err == nil {
		t.Errorf("OpenDir of nothing = %v", s)
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(file), "file", nil)
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := softkey.OpenDir(path); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("OpenDir of a file = %v, want ErrUnavailable", err)
		}
	}
}

func TestOpenDirRefusesOpenFolder(t *testing.T) {
	skipOnWindows(t)
	for _, mode := range []fs.FileMode{0o720, 0o702, 0o722, 0o777} {
		dir := newDir(t)
		write(t, dir, "key.pem", read(t, "testdata", "openssl-P-256.pem"))
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := softkey.OpenDir(dir)
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "chmod go= "+dir) {
			t.Errorf("OpenDir with mode %04o = %v, want ErrUnavailable with advice", mode, err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mode {
			t.Errorf("the mode was changed to %v, %v", info.Mode(), err)
		}
	}
}

// TestReadableFolder: mkdir makes folders that others may read, and so does
// t.TempDir. The keys' own files are what must be private.
func TestReadableFolder(t *testing.T) {
	skipOnWindows(t)
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openDir(t, dir).Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestOpenRefusesOpenFile(t *testing.T) {
	skipOnWindows(t)
	dir := newDir(t)
	s := openDir(t, dir)
	if _, err := s.Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key.pem")
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o601, 0o666} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := s.Open(t.Context(), "key")
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "chmod go= "+file) {
			t.Errorf("Open with mode %04o = %v, want ErrUnavailable with advice", mode, err)
		}
		if _, err := keystore.OpenOrCreate(t.Context(), s, "key"); err == nil {
			t.Errorf("OpenOrCreate with mode %04o succeeded", mode)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), "key"); err != nil {
			t.Errorf("Open with mode %04o = %v", mode, err)
		}
	}
}

// TestNotPlainFiles: links are not followed and folders are not keys.
func TestNotPlainFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making symbolic links needs a privilege there")
	}
	for name, make := range map[string]func(file string) error{
		"link to a key":   func(file string) error { return os.Symlink("../target.pem", file) },
		"link to nothing": func(file string) error { return os.Symlink("nothing", file) },
		"link to itself":  func(file string) error { return os.Symlink("key.pem", file) },
		"folder":          func(file string) error { return os.Mkdir(file, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			write(t, filepath.Dir(dir), "target.pem", read(t, "testdata", "openssl-P-256.pem"))
			s := openDir(t, dir)
			if err := make(filepath.Join(dir, "key.pem")); err != nil {
				t.Fatal(err)
			}
			wantCorrupt(t, s, dir)
			if err := s.Delete(t.Context(), "key"); err != nil {
				t.Errorf("Delete: %v", err)
			}
			if got := files(t, dir); len(got) != 0 {
				t.Errorf("files %q after Delete", got)
			}
			if len(read(t, filepath.Dir(dir), "target.pem")) == 0 {
				t.Error("Delete followed the link")
			}
		})
	}
}

// TestForeignFiles: whatever else is in the folder is neither listed nor touched.
func TestForeignFiles(t *testing.T) {
	dir := newDir(t)
	foreign := []string{".hidden.pem", ".new-123", ".pem", "README", "a b.pem", "key.pem.bak", "key.txt", strings.Repeat("n", 129) + ".pem"}
	for _, file := range foreign {
		write(t, dir, file, []byte("foreign"))
	}
	s := openDir(t, dir)
	if names, err := s.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("List = %q, %v, want nothing", names, err)
	}
	for range 2 {
		if _, err := s.Create(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); !slices.Equal(got, foreign) {
		t.Errorf("files %q, want %q", got, foreign)
	}
}

// TestDeleteKilledCreate: a process that was killed after the link was made
// leaves the key under two names. Delete destroys both.
func TestDeleteKilledCreate(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	if _, err := s.Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "key.pem"), filepath.Join(dir, ".new-1")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, ".new-2", read(t, dir, "key.pem")) // of a Create still under way
	if names, err := s.List(t.Context()); err != nil || !slices.Equal(names, []string{"key"}) {
		t.Errorf("List = %q, %v, want key", names, err)
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{".new-2"}) {
		t.Errorf("files %q after Delete, want .new-2 alone", got)
	}
}

// TestAbandonedFiles: what processes have left that were killed long ago goes when
// the folder is opened, and what one may be writing stays.
func TestAbandonedFiles(t *testing.T) {
	dir := newDir(t)
	openDir(t, dir)
	for _, name := range []string{".new-old", ".new-young", "other"} {
		write(t, dir, name, []byte("key"))
	}
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".new-old", "other"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	openDir(t, dir)
	if got := files(t, dir); !slices.Equal(got, []string{".new-young", "other"}) {
		t.Errorf("files %q, want .new-young and other", got)
	}
}

// TestFolderGone: a folder that is not mounted is not an empty one.
func TestFolderGone(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	if _, err := s.Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, createErr := s.Create(t.Context(), "key")
	_, openErr := s.Open(t.Context(), "key")
	_, bothErr := keystore.OpenOrCreate(t.Context(), s, "key")
	_, listErr := s.List(t.Context())
	for method, err := range map[string]error{
		"Create": createErr, "Open": openErr, "OpenOrCreate": bothErr, "List": listErr, "Delete": s.Delete(t.Context(), "key"),
	} {
		if !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("%s = %v, want ErrUnavailable and its cause", method, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made again: %v", err)
	}
}

// TestRelativeFolder: the folder stays where it was when the process moves.
func TestRelativeFolder(t *testing.T) {
	here, elsewhere := t.TempDir(), t.TempDir()
	t.Chdir(here)
	s := openDir(t, "keys")
	t.Chdir(elsewhere)
	if _, err := s.Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, filepath.Join(here, "keys")); !slices.Equal(got, []string{"key.pem"}) {
		t.Errorf("files %q", got)
	}
}

// TestStoresAtOnce: Stores over one folder share nothing but the folder.
func TestStoresAtOnce(t *testing.T) {
	dir := newDir(t)
	const stores = 8
	var keys [stores]keystore.Key
	var errs [stores]error
	var wg sync.WaitGroup
	for i := range stores {
		s := openDir(t, dir)
		wg.Go(func() { keys[i], errs[i] = keystore.OpenOrCreate(t.Context(), s, "key") })
	}
	wg.Wait()
	for i := range stores {
		if errs[i] != nil || thumbprint(t, keys[i]) != thumbprint(t, keys[0]) {
			t.Errorf("store %d: %v, %v, want the key of store 0", i, keys[i], errs[i])
		}
	}
	if got := files(t, dir); !slices.Equal(got, []string{"key.pem"}) {
		t.Errorf("files %q, want key.pem alone", got)
	}
}
