package client_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestDirCache(t *testing.T) {
	ctx := t.Context()
	root := t.TempDir()
	dir := filepath.Join(root, "made", "when", "needed")
	cache := client.DirCache(dir)
	if _, err := cache.Get(ctx, "key"); !errors.Is(err, client.ErrCacheMiss) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get without folder: %v, want ErrCacheMiss", err)
	}
	if err := cache.Delete(ctx, "key"); err != nil {
		t.Errorf("Delete without folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "made")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("Get or Delete has made the folder")
	}
	for _, value := range []string{"one", "", strings.Repeat("x", 32<<10)} {
		if err := cache.Put(ctx, "key", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := cache.Get(ctx, "key"); err != nil || string(got) != value {
			t.Errorf("Get = %.20q, %v, want %.20q", got, err, value)
		}
	}
	for path, want := range map[string]fs.FileMode{filepath.Join(dir, "key"): 0o600, dir: 0o700, filepath.Join(root, "made"): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("folder has %d entries (%v), want 1", len(entries), err)
	}
	for range 2 {
		if err := cache.Delete(ctx, "key"); err != nil {
			t.Error(err)
		}
	}
	if _, err := cache.Get(ctx, "key"); !errors.Is(err, client.ErrCacheMiss) {
		t.Errorf("Get after Delete: %v, want ErrCacheMiss", err)
	}
}

func TestDirCacheRefuses(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cache := client.DirCache(dir)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "..", "../outside", "a/b", ".hidden", "a\x00b", strings.Repeat("a", 129)} {
		_, err := cache.Get(ctx, key)
		if err == nil || errors.Is(err, client.ErrCacheMiss) {
			t.Errorf("Get(%.20q): %v, want an error that is no miss", key, err)
		}
		if err := cache.Put(ctx, key, []byte("y")); err == nil {
			t.Errorf("Put(%.20q): no error", key)
		}
		if err := cache.Delete(ctx, key); err == nil {
			t.Errorf("Delete(%.20q): no error", key)
		}
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "x" {
		t.Errorf("a file outside the folder was changed: %q, %v", got, err)
	}

	if err := os.WriteFile(filepath.Join(dir, "open"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 32<<10+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"open", "link", "big"} {
		if _, err := cache.Get(ctx, key); err == nil || errors.Is(err, client.ErrCacheMiss) {
			t.Errorf("Get(%q): %v, want an error that is no miss", key, err)
		}
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: false, 0o707: false, 0o777: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := cache.Put(ctx, "key", []byte("y")); (err == nil) != ok {
			t.Errorf("Put into a folder of mode %04o: %v, want ok = %t", mode, err, ok)
		}
		if _, err := os.Stat(filepath.Join(dir, "key")); (err == nil) != ok {
			t.Errorf("after Put into a folder of mode %04o: %v, want written = %t", mode, err, ok)
		}
		if err := cache.Delete(ctx, "key"); err != nil {
			t.Error(err)
		}
	}
}

// TestDirCacheStays: a relative name is that of one folder, wherever the process
// goes.
func TestDirCacheStays(t *testing.T) {
	before, after := t.TempDir(), t.TempDir()
	t.Chdir(before)
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, func(cfg *client.Config) { cfg.Cache = client.DirCache("attestations") })
	t.Chdir(after)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	there, _ := filepath.Glob(filepath.Join(before, "attestations", "*"))
	here, _ := filepath.Glob(filepath.Join(after, "*"))
	if len(there) != 1 || len(here) != 0 {
		t.Errorf("files %q where the Client was made, %q where the process is", there, here)
	}
}
