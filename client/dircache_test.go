// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
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
	for _, path := range []string{filepath.Join(dir, "key"), dir, filepath.Join(root, "made")} {
		privatefiletest.Check(t, path)
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

	if err := os.WriteFile(filepath.Join(dir, "open"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	privatefiletest.SetMode(t, filepath.Join(dir, "open"), 0o644)
	refused := []string{"open", "big"}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "link")); err == nil { // on Windows that takes a privilege, and Wine has none
		refused = append(refused, "link")
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 32<<10+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range refused {
		if _, err := cache.Get(ctx, key); err == nil || errors.Is(err, client.ErrCacheMiss) {
			t.Errorf("Get(%q): %v, want an error that is no miss", key, err)
		}
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: false, 0o707: false, 0o777: false} {
		privatefiletest.SetMode(t, dir, mode)
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

func TestDirCacheOfOthersIsNotRead(t *testing.T) {
	dir := t.TempDir()
	cache := client.DirCache(dir)
	if err := cache.Put(t.Context(), "key", []byte("y")); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: false, 0o707: false, 0o777: false, 0o720: false, 0o702: false} {
		privatefiletest.SetMode(t, dir, mode)
		got, err := cache.Get(t.Context(), "key")
		if (err == nil) != ok || (string(got) == "y") != ok || errors.Is(err, client.ErrCacheMiss) {
			t.Errorf("Get from a folder of mode %04o: %q, %v, want ok = %t", mode, got, err, ok)
		}
	}
}

func TestDirCacheHonoursContexts(t *testing.T) {
	dir := t.TempDir()
	cache := client.DirCache(dir)
	if err := cache.Put(t.Context(), "key", []byte("y")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cache.Get(ctx, "key"); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrCacheMiss) {
		t.Errorf("Get: %v", err)
	}
	if err := cache.Put(ctx, "other", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if err := cache.Delete(ctx, "key"); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "key" {
		t.Errorf("the folder holds %v (%v), want key alone", entries, err)
	}
}

// TestDirCacheIsSweptOfTemporaries that nobody is writing, and, after an hour, of those
// that do not tell.
func TestDirCacheIsSweptOfTemporaries(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".new-key-1", ".new-1", ".new-retired-1", ".new-young-1"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-2 * time.Hour)
		if name == ".new-1" || name == ".new-retired-1" {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := client.DirCache(dir).Put(t.Context(), "key", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 || filepath.Base(names[0]) != "key" {
		t.Errorf("the folder holds %q, want key", names)
	}
}

// TestNewSeesFolderThatCannotBeUsed, before anything is sent and a key is made.
func TestNewSeesFolderThatCannotBeUsed(t *testing.T) {
	root := t.TempDir()
	file, open := filepath.Join(root, "file"), filepath.Join(root, "open")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	privatefiletest.SetMode(t, open, 0o777)
	for name, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "open to others": open, "NUL": root + "/\x00"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			cfg.Cache = client.DirCache(dir)
			if c, err := client.New(t.Context(), cfg); err == nil || c != nil || !strings.Contains(err.Error(), "client: cache: ") {
				t.Errorf("New: %v", err)
			}
			if n := r.store.creates.Load(); n != 0 || r.total() != 0 {
				t.Errorf("%d keys made, %d requests sent", n, r.total())
			}
		})
	}
	r := newRig(t, transporttest.Policy{})
	made := filepath.Join(root, "a", "b")
	r.client(t, func(cfg *client.Config) { cfg.Cache = client.DirCache(made) })
	if entries, err := os.ReadDir(made); err != nil || len(entries) != 0 {
		t.Errorf("New has left %v (%v), want an empty folder", entries, err)
	}
}
