// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/examples/internal/watch"
)

// TestFiles: every change of what is in the files is noticed within a minute, once;
// a change of their time stamps is none.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "file"), filepath.Join(dir, "folder")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) func() {
		return func() { must(os.WriteFile(name, []byte(content), 0o600)) }
	}
	must(os.Mkdir(folder, 0o700))
	write(file, "one")()
	old := time.Unix(1_000_000_000, 0)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var changes atomic.Int64
		paths := []string{file, "", folder}
		go watch.Files(ctx, watch.Digest(paths), paths, func() { changes.Add(1) })
		want := int64(0)
		for name, step := range []struct {
			do      func()
			changed bool
		}{
			{func() {}, false},
			{write(file, "two"), true},
			{func() { must(os.Chtimes(file, old, old)) }, false},
			{func() { write(file, "six")(); must(os.Chtimes(file, old, old)) }, true}, // same size, same time
			{write(filepath.Join(folder, "a"), "one"), true},
			{write(filepath.Join(folder, "a"), "two"), true},
			{func() { must(os.Rename(filepath.Join(folder, "a"), filepath.Join(folder, "b"))) }, true},
			{func() { must(os.Remove(file)) }, true},
			{func() {}, false},
			{write(file, "six"), true},
			{func() { must(os.RemoveAll(folder)) }, true},
			{write(file, "six"), false},
		} {
			step.do()
			if step.changed {
				want++
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := changes.Load(); got != want {
				t.Errorf("step %d: %d changes, want %d", name, got, want)
			}
		}
	})
}

// TestFilesSince: what has changed between reading and watching is noticed.
func TestFilesSince(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	digest := watch.Digest([]string{file})
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var changes atomic.Int64
		go watch.Files(ctx, digest, []string{file}, func() { changes.Add(1) })
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := changes.Load(); got != 1 {
			t.Errorf("%d changes, want 1", got)
		}
	})
}
