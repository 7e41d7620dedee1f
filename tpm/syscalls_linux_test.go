// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

func init() {
	// strace counts the calls of each thread: with what the child does in its first one,
	// the count is the same each time.
	if os.Getenv(childVariable) != "" {
		runtime.LockOSThread()
	}
}

// changing are the system calls that can change a folder or what is in it, or say
// that it is on the disk.
const changing = "openat,open,creat,write,pwrite64,writev,rename,renameat,renameat2,link,linkat,symlink,symlinkat," +
	"unlink,unlinkat,mkdir,mkdirat,chmod,fchmod,fchmodat,fchmodat2,chown,fchown,fchownat,truncate,ftruncate,fallocate," +
	"utimensat,setxattr,fsetxattr,copy_file_range,sendfile,fsync,fdatasync,sync_file_range"

// tracedCall is one system call of the child's: the nth of that name.
type tracedCall struct {
	name string
	n    int
	line string
}

// TestKillAtEachSystemCall kills a process with signal 9 at every system call that
// changes the folder: they are found by tracing the same operation before. Afterwards
// either the key is whole, or nothing in the folder or in the TPM can sign for it; and
// when it is deleted nothing can.
func TestKillAtEachSystemCall(t *testing.T) {
	if out, err := exec.Command("strace", "-f", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		why := fmt.Sprintf("strace cannot be used (Debian: apt-get install strace): %v: %s", err, out)
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	sim := tpmtest.Simulator(t)
	rm := tpmtest.NewResourceManager(t, sim)
	socket := tpmtest.ServeUnix(t, rm)
	kills := 0
	for _, operation := range []string{"create", "import", "persist", "unpersist", "delete", "delete persistent", "sign"} {
		t.Run(operation, func(t *testing.T) {
			r, dir := prepareSyscalls(t, sim, rm, operation)
			calls := traceChild(t, socket, dir, operation, "")
			checkWhole(t, sim, r)
			points := 0
			for _, call := range calls {
				if !strings.Contains(call.line, dir) {
					continue
				}
				points++
				r, dir := prepareSyscalls(t, sim, rm, operation)
				traceChild(t, socket, dir, operation, fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call.name, call.n))
				kills++
				checkWhole(t, sim, r)
				if t.Failed() {
					t.Fatalf("killed at %s", call.line)
				}
			}
			if points < 3 {
				t.Errorf("only %d system calls change the folder", points)
			}
		})
	}
	t.Logf("killed %d times", kills)
}

// prepareSyscalls makes the state before an operation.
func prepareSyscalls(t *testing.T, sim *tpmtest.Sim, rm *tpmtest.ResourceManager, operation string) (*rig, string) {
	t.Helper()
	if operation != "sign" {
		return prepareKill(t, rm, operation)
	}
	r, dir := prepareKill(t, rm, "create")
	put(t, r, "key", foreignKey{emptyAuth: true, noDA: true}.file(t, sim)) // the signature notes its parent
	return r, dir
}

var straceLine = regexp.MustCompile(`^(\d+) +(\w+)\(`)

// traceChild runs a child under strace and returns the calls of its first thread. If
// inject is not empty, the child must be killed thereby.
func traceChild(t *testing.T, socket, dir, operation, inject string) []tracedCall {
	t.Helper()
	child := childCommand(socket, dir, operation)
	log := filepath.Join(t.TempDir(), "strace")
	trace := "trace=?" + strings.ReplaceAll(changing, ",", ",?") // one that this kernel does not have is no error
	args := []string{"-f", "-qq", "-y", "-s", "0", "-o", log, "-e", trace, "-e", "signal=none"}
	if inject != "" {
		args = append(args, "-e", inject)
	}
	cmd := exec.Command("strace", append(args, child.Path)...)
	cmd.Env = child.Env
	out, err := cmd.CombinedOutput()
	if killed := err != nil && strings.Contains(err.Error(), "killed"); killed != (inject != "") || err != nil && !killed {
		t.Fatalf("%s %s: %v: %s", operation, inject, err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var calls []tracedCall
	count := map[string]int{}
	first := ""
	for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
		match := straceLine.FindStringSubmatch(scanner.Text())
		if match == nil {
			continue
		}
		if first == "" {
			first = match[1]
		}
		if match[1] == first {
			count[match[2]]++
			calls = append(calls, tracedCall{match[2], count[match[2]], scanner.Text()})
		}
	}
	return calls
}

// checkWhole looks at what a killed process has left, and deletes it.
func checkWhole(t *testing.T, sim *tpmtest.Sim, r *rig) {
	t.Helper()
	able := ableToSign(t, sim, r.config.Dir)
	s := r.reopen(t)
	defer s.Close()
	key, err := s.Open(t.Context(), "key")
	if err == nil {
		_, err = key.Sign(t.Context(), []byte("input"))
	}
	if err != nil && (len(able) > 0 || len(persistent(t, sim)) > 0) {
		t.Errorf("the key is not whole (%v), and %q and the handles %x can sign", err, able, persistent(t, sim))
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if able := ableToSign(t, sim, r.config.Dir); len(able) > 0 || len(persistent(t, sim)) > 0 {
		t.Errorf("after Delete, %q and the handles %x can sign", able, persistent(t, sim))
	}
}

// ableToSign returns the files of a folder, whatever their names, that can sign.
func ableToSign(t *testing.T, sim *tpmtest.Sim, dir string) (able []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	config := tpm.Config{Dial: sim.Dial, Dir: t.TempDir()}
	withPIN(childPIN)(&config)
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(config.Dir, "key.pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := s.Open(t.Context(), "key")
		if err != nil {
			continue
		}
		if _, err := key.Sign(t.Context(), []byte("input")); err == nil {
			able = append(able, e.Name())
		}
	}
	return able
}
