// SPDX-License-Identifier: Apache-2.0

package privatefile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile"
)

func TestReadersNeverSeeHalfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	contents := [][]byte{bytes.Repeat([]byte("a"), 64<<10), bytes.Repeat([]byte("b"), 10)}
	if err := privatefile.Replace(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	const writers, rounds = 4, 25
	done := make(chan struct{})
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for range rounds {
				if err := privatefile.Replace(path, contents[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writing.Wait(); close(done) }()
	reads := 0
	for ended := false; !ended; reads++ {
		select {
		case <-done:
			ended = true
		default:
		}
		got, err := privatefile.Read(path, 1<<20)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	if reads < 2 {
		t.Errorf("%d reads", reads)
	}
	onlyFiles(t, dir, "file")
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for content, limit := range map[string]int{"": 0, "abc": 3, "abcd": 1 << 20} {
		write(t, path, content, 0o600)
		if got, err := privatefile.Read(path, limit); err != nil || string(got) != content {
			t.Errorf("Read = %q, %v, want %q", got, err, content)
		}
	}
	write(t, path, "abc", 0o400)
	if got, err := privatefile.Read(path, 3); err != nil || string(got) != "abc" {
		t.Errorf("a file of mode 0400: %q, %v", got, err)
	}
	if got, err := privatefile.Read(path, 2); !errors.Is(err, privatefile.ErrTooLarge) || got != nil || !strings.Contains(err.Error(), path) {
		t.Errorf("over the limit: %q, %v, want ErrTooLarge", got, err)
	}
	if _, err := privatefile.Read(filepath.Join(dir, "none"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v, want fs.ErrNotExist", err)
	}
}

func TestReadRefusesWhatIsNoPlainFile(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	write(t, plain, "x", 0o600)
	link, dangling, socket := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "socket")
	paths := []string{dir, os.DevNull}
	for from, to := range map[string]string{link: plain, dangling: filepath.Join(dir, "nowhere")} {
		if symlink(t, to, from) {
			paths = append(paths, from)
		}
	}
	if listener, err := net.Listen("unix", socket); err == nil {
		defer listener.Close()
		paths = append(paths, socket)
	} else if runtime.GOOS != "windows" { // where not every version has them
		t.Fatal(err)
	}
	for _, path := range paths {
		if _, err := privatefile.Read(path, 10); !errors.Is(err, privatefile.ErrNotPlain) {
			t.Errorf("%s: %v, want ErrNotPlain", path, err)
		}
	}
}

// TestReplaceBesideManyReaders: readers who never end keep nobody from replacing a
// file, and nobody fails.
func TestReplaceBesideManyReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := privatefile.Replace(path, []byte("0")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if content, err := privatefile.Read(path, 10); err != nil || len(content) != 1 {
					t.Errorf("%q, %v", content, err)
					return
				}
			}
		})
	}
	for i := range 10 {
		if err := privatefile.Replace(path, []byte{byte('0' + i)}); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
	wantContent(t, path, "9")
}
