// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/windows"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/tpm"
)

// needsTBS skips a test unless it may use this machine's TPM: it makes some 100 keys
// and leaves none, and uses one persistent handle for a while.
//
//	set TPM_TBS=1
//	go test -run TestTBS ./tpm
//
// In Wine, make windows has swtpm behind the TPM Base Services.
func needsTBS(t *testing.T) {
	t.Helper()
	if os.Getenv("TPM_TBS") == "" {
		t.Skip("TPM_TBS is not set: this machine's TPM is not for tests")
	}
}

// needsWine skips a test unless the TPM Base Services do what the environment says.
func needsWine(t *testing.T) {
	t.Helper()
	if needsTBS(t); os.Getenv("TBS_ADDRESS") == "" {
		t.Skip("these TPM Base Services are not those of testdata/tbs.c: use make windows")
	}
}

type tbsDevice struct{}

func (tbsDevice) Dial(ctx context.Context) (transport.TPMCloser, error) {
	return tpm.OpenDevice(ctx)
}

func onTBS(c *tpm.Config) { c.Dial = nil }

func TestTBSConformance(t *testing.T) {
	needsTBS(t)
	keystoretest.RunPersistent(t, places(tbsDevice{}, onTBS))
	t.Run("PIN", func(t *testing.T) { keystoretest.RunPersistent(t, places(tbsDevice{}, onTBS, withPIN("1234"))) })
	for _, o := range kinds {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := newRig(t, tbsDevice{}, withPIN(childPIN))
			keystoretest.RunKey(t, create(t, r.Store, "key", o))
		})
	}
}

// TestTBSEvidence: key and boot are proved, with the log that Windows has.
func TestTBSEvidence(t *testing.T) {
	needsWine(t)
	log := []byte("the log is the attester's to judge")
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, tbsDevice{}, onTBS, func(c *tpm.Config) { c.EventLog = tpm.WindowsEventLog })
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	request := keystore.EvidenceRequest{Binding: binding, PCRs: []int{7}, AKCertificates: [][]byte{certificate}}
	if _, err := attestable(t, key).Evidence(t.Context(), request); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "TBS_E_NO_EVENT_LOG") {
		t.Errorf("without a log: %v", err)
	}
	t.Setenv("TBS_LOG", path)
	if evidence := prove(t, key, 7); string(evidence.EventLog) != string(log) {
		t.Errorf("the log is %q", evidence.EventLog)
	}
	if len(enrol(t, key).AK) == 0 {
		t.Error("no attestation key")
	}
	for size, works := range map[int]bool{0: false, 1: true, 1 << 20: true, 1<<20 + 1: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := tpm.WindowsEventLog(t.Context()); (err == nil) != works || works && len(got) != size {
			t.Errorf("a log of %d octets: %d octets, %v", size, len(got), err)
		}
	}
}

// TestTBSRefuses: what TBS refuses is an error that says what to do, and nothing is
// written.
func TestTBSRefuses(t *testing.T) {
	needsWine(t)
	for _, line := range tpm.Faults() {
		for _, cause := range line.Causes {
			code, ok := cause.(tpm.TBSCode)
			if !ok {
				continue
			}
			t.Run(code.Error(), func(t *testing.T) {
				dir := t.TempDir()
				t.Setenv("TBS_RESULT", fmt.Sprintf("%x", uint32(code)))
				_, err := tpm.Open(t.Context(), tpm.Config{Dir: dir})
				wantError(t, err, line.Sentinel, cause)
				if !strings.Contains(err.Error(), line.Advice) {
					t.Errorf("%q does not say %q", err, line.Advice)
				}
				wantEmpty(t, dir)
			})
		}
	}
}

// TestTBSBlocks: a command that TBS blocks leaves everything as it was.
func TestTBSBlocks(t *testing.T) {
	needsWine(t)
	r := newRig(t, tbsDevice{}, onTBS)
	for name, codes := range map[string][]tpm2.TPMCC{
		"new": {ccCreate, ccCreatePrimary, ccLoad},
	} {
		for _, code := range codes {
			t.Setenv("TBS_BLOCK", fmt.Sprintf("%x", uint32(code)))
			_, err := r.Create(t.Context(), name)
			wantError(t, err, keystore.ErrUnavailable, tpm.TBSCode(0x80280400))
			wantEmpty(t, r.config.Dir)
		}
	}
	t.Setenv("TBS_BLOCK", "")
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	before, err := os.ReadFile(filepath.Join(r.config.Dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TBS_BLOCK", fmt.Sprintf("%x", uint32(ccEvictControl)))
	wantError(t, r.Persist(t.Context(), "key", handle), keystore.ErrUnavailable, tpm.TBSCode(0x80280400))
	t.Setenv("TBS_BLOCK", "")
	if after, err := os.ReadFile(filepath.Join(r.config.Dir, "key.pem")); err != nil || string(after) != string(before) {
		t.Errorf("the file has changed, or %v", err)
	}
	sign(t, key)
	if n := len(ours(t, tbs(t))); n != 0 {
		t.Errorf("%d persistent keys", n)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v: want an empty folder", entries, err)
	}
}

// ours are the persistent keys at the tests' handle: Windows has some of its own.
func ours(t *testing.T, chip transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	return slices.DeleteFunc(persistent(t, chip), func(h tpm2.TPMHandle) bool { return h != handle })
}

func tbs(t *testing.T) transport.TPM {
	t.Helper()
	conn, err := tpm.OpenDevice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// killVariable has a child terminate itself before its nth command.
const killVariable = "TPM_TEST_KILL_AT"

// selfKiller is a connection that ends the process, as TerminateProcess does, before or
// after one of its commands.
type selfKiller struct {
	transport.TPMCloser
	left *int
}

func (k selfKiller) Send(command []byte) ([]byte, error) {
	k.tick()
	answer, err := k.TPMCloser.Send(command)
	k.tick()
	return answer, err
}

func (k selfKiller) tick() {
	if *k.left == 0 {
		_ = windows.TerminateProcess(windows.CurrentProcess(), killed)
	}
	*k.left--
}

const killed = 137

// dialTBS is the Dial of a child on Windows.
func dialTBS(ctx context.Context) (transport.TPMCloser, error) {
	conn, err := tpm.OpenDevice(ctx)
	at := os.Getenv(killVariable)
	if err != nil || at == "" {
		return conn, err
	}
	n, err := strconv.Atoi(at)
	return selfKiller{conn, &n}, err
}

func init() { dialChild["tbs"] = dialTBS }

// TestTBSKill is TestKill with TerminateProcess: before and after every command of
// every operation, and at random moments.
func TestTBSKill(t *testing.T) {
	needsTBS(t)
	kills := 0
	for _, operation := range []string{"create", "delete", "delete persistent", "persist", "unpersist"} {
		t.Run(operation, func(t *testing.T) {
			for point := 0; ; point++ {
				r, dir := prepareTBSKill(t, operation)
				cmd := childCommand("tbs", dir, operation)
				cmd.Env = append(cmd.Env, killVariable+"="+strconv.Itoa(point))
				out, err := cmd.CombinedOutput()
				checkTBSKill(t, r)
				if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == killed {
					kills++
					continue
				}
				if err != nil {
					t.Errorf("the child process: %v: %s", err, out)
				}
				return
			}
		})
		t.Run(operation+" at random", func(t *testing.T) {
			for range 8 {
				r, dir := prepareTBSKill(t, operation)
				cmd := childCommand("tbs", dir, operation)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { cmd.Process.Kill() })
				_ = cmd.Wait()
				kills++
				checkTBSKill(t, r)
			}
		})
	}
	t.Logf("killed %d times", kills)
	if kills < 60 {
		t.Errorf("killed %d times only", kills)
	}
}

func prepareTBSKill(t *testing.T, operation string) (*rig, string) {
	t.Helper()
	r := newRig(t, tbsDevice{}, onTBS)
	if operation != "create" {
		create(t, r.Store, "key", tpm.KeyOptions{})
	}
	if operation == "unpersist" || operation == "delete persistent" {
		if err := r.Persist(t.Context(), "key", handle); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	return r, filepath.Dir(r.config.Dir)
}

// checkTBSKill: the old state is there or the new one, and nothing of either is left
// when the key is deleted, also no temporary file.
func checkTBSKill(t *testing.T, r *rig) {
	t.Helper()
	s := r.reopen(t)
	defer s.Close()
	names, err := s.List(t.Context())
	if err != nil || len(names) > 1 {
		t.Errorf("List: %q, %v", names, err)
	}
	if len(names) == 1 {
		sign(t, open(t, s, "key"))
	}
	chip := tbs(t)
	if n := len(ours(t, chip)); n > len(names) {
		t.Errorf("%d persistent keys, and %d files", n, len(names))
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if n := len(ours(t, chip)); n != 0 {
		t.Errorf("%d persistent keys that no file names", n)
	}
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), privatefile.TempPrefix) || strings.HasSuffix(e.Name(), ".pem") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// TestTBSRace: two processes and this one create, sign with, persist, unpersist and
// delete one key in one folder. Each is told what is so, and never that a file is in
// use or broken.
func TestTBSRace(t *testing.T) {
	needsTBS(t)
	r := newRig(t, tbsDevice{}, onTBS)
	const children = 2
	var cmds [children]*exec.Cmd
	var outs [children]strings.Builder
	for i := range cmds {
		cmds[i] = childCommand("tbs", filepath.Dir(r.config.Dir), "race")
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], &outs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := race(t.Context(), r.Store); err != nil {
		t.Error(err)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, &outs[i])
		}
	}
	checkTBSKill(t, r)
}
