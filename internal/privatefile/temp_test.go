// SPDX-License-Identifier: Apache-2.0

package privatefile_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/privatefile"
)

// endlessWriter makes the test binary a program that writes the file of that name
// again and again.
const endlessWriter = "PRIVATEFILE_TEST_WRITE"

// oneWriter makes it one that writes the file of that name once.
const oneWriter = "PRIVATEFILE_TEST_WRITE_ONCE"

func TestMain(m *testing.M) {
	if path := os.Getenv(endlessWriter); path != "" {
		content := make([]byte, 4<<20)
		os.Stdout.WriteString("writing\n")
		for {
			if err := privatefile.Replace(path, content); err != nil {
				os.Stdout.WriteString(err.Error() + "\n")
				os.Exit(1)
			}
		}
	}
	if path := os.Getenv(oneWriter); path != "" {
		if err := privatefile.Replace(path, []byte("new")); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func temps(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, privatefile.TempPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKilledWritersLeaveOneFile: the next writer takes away what the last one has
// left, at once and not after an hour: a device in a crash loop has no hour.
func TestKilledWritersLeaveOneFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	left := 0
	const kills = 15
	for i := range kills {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), endlessWriter+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "writing\n" {
			t.Fatalf("%q, %v", line, err)
		}
		// It dies in the midst of a file: one is there, and it is not the last
		// one's, which the first write takes away.
		before := temps(t, dir)
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if now := temps(t, dir); len(now) == 1 && (len(before) == 0 || now[0] != before[0]) {
				break
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		n := len(temps(t, dir))
		if n > 1 {
			t.Fatalf("after %d kills %d temporary files are left, want 1 at the most", i+1, n)
		}
		left += n
	}
	if left == 0 {
		t.Fatalf("%d kills, and none has left anything: this test shows nothing", kills)
	}
	if err := privatefile.Replace(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	onlyFiles(t, dir, "file")
}

func TestSweepTakesItsOwnAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, name := range []string{".new-file-1", ".new-file-2", ".new-other-1", ".new-1", ".new-fil-1", ".new-file", "new-file-1", ".file-1"} {
		write(t, filepath.Join(dir, name), "x", 0o600)
	}
	hasLink := symlink(t, path, filepath.Join(dir, ".new-file-link"))
	if err := os.Mkdir(filepath.Join(dir, ".new-file-folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".new-file-2"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := privatefile.Create(path, []byte("content")); err != nil {
		t.Fatal(err)
	}
	wants := []string{".file-1", ".new-1", ".new-fil-1", ".new-file", ".new-file-folder", ".new-file-link", ".new-other-1", "file", "new-file-1"}
	if !hasLink {
		wants = slices.DeleteFunc(wants, func(name string) bool { return name == ".new-file-link" })
	}
	onlyFiles(t, dir, wants...)
}

// TestSweepLeavesWhatIsBeingWritten, be it ever so old.
func TestSweepLeavesWhatIsBeingWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), endlessWriter+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	reader := bufio.NewReader(out)
	if line, err := reader.ReadString('\n'); err != nil || line != "writing\n" {
		t.Fatalf("%q, %v", line, err)
	}
	failed := make(chan string, 1)
	go func() { line, _ := reader.ReadString('\n'); failed <- line }()
	old := time.Now().Add(-2 * time.Hour)
	for range 200 {
		for _, name := range temps(t, dir) {
			_ = os.Chtimes(name, old, old) // it may be gone
		}
		privatefile.Sweep(path)
		privatefile.SweepDir(dir)
	}
	select {
	case line := <-failed:
		t.Errorf("the writer failed: %s", strings.TrimSpace(line))
	default:
	}
}

func TestSweepDir(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".new-1", ".new-file-1", "other", ".hidden"} {
		write(t, filepath.Join(dir, name), "x", 0o600)
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, ".new-young"), "x", 0o600)
	privatefile.SweepDir(dir)
	onlyFiles(t, dir, ".hidden", ".new-young", "other")
	privatefile.SweepDir(filepath.Join(dir, "missing")) // is no panic
}

// TestLongNames: the name of a temporary file is not too long where that of the
// file is not.
func TestLongNames(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 255)
	for range 2 {
		if err := privatefile.Replace(filepath.Join(dir, name), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	onlyFiles(t, dir, name)
}
