// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

const childPIN = "1234"

// childVariable makes this test binary do one operation and end.
const childVariable = "TPM_TEST_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		if err := child(strings.Split(job, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dialChild has ways to a TPM for a child that are no socket.
var dialChild = map[string]func(context.Context) (transport.TPMCloser, error){}

func child(job []string) (err error) {
	socket, dir, operation := job[0], job[1], job[2]
	ctx := context.Background()
	config := tpm.Config{Dir: filepath.Join(dir, "keys"), Dial: dialChild[socket]}
	if config.Dial == nil {
		config.Dial = func(context.Context) (transport.TPMCloser, error) {
			conn, err := net.Dial("unix", socket)
			return tpm.NewConn(conn), err
		}
	}
	if operation == "sign" || operation == "FIPS" {
		withPIN(childPIN)(&config)
	}
	if operation == "FIPS owner" {
		config.OwnerAuth = []byte("short")
	}
	s, err := tpm.Open(ctx, config)
	if err != nil {
		return err
	}
	switch operation {
	case "FIPS owner":
		if _, err := s.Create(ctx, "key"); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "fips140=on") {
			return fmt.Errorf("with a short password: %w", err)
		}
		return s.Close()
	case "create":
		_, err = s.Create(ctx, "key")
	case "delete", "delete persistent":
		err = s.Delete(ctx, "key")
	case "import":
		var text []byte
		if text, err = os.ReadFile(filepath.Join(dir, "wrapped.pem")); err == nil {
			_, err = s.Import(ctx, "key", text)
		}
	case "sign":
		var key keystore.Key
		if key, err = s.Open(ctx, "key"); err != nil {
			break
		}
		for range 10 {
			if _, err = key.Sign(ctx, []byte("input")); err != nil {
				break
			}
		}
		return errors.Join(err, s.Close())
	case "FIPS":
		return errors.Join(underFIPS(ctx, s), s.Close())
	case "race":
		return errors.Join(race(ctx, s), s.Close())
	case "persist":
		err = s.Persist(ctx, "key", handle)
	case "unpersist":
		err = s.Unpersist(ctx, "key")
	}
	return err
}

func childCommand(job ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(job, ","),
		"GORACE=atexit_sleep_ms=0") // a second each, otherwise
	return cmd
}

// TestProcesses: several processes sign with one key behind a resource manager,
// each with the PIN's session.
func TestProcesses(t *testing.T) {
	sim := tpmtest.Simulator(t)
	rm := tpmtest.NewResourceManager(t, sim)
	socket := tpmtest.ServeUnix(t, rm)
	for _, o := range kinds {
		r := newRig(t, rm, withPIN(childPIN))
		key := create(t, r.Store, "key", o)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if out, err := childCommand(socket, filepath.Dir(r.config.Dir), "sign").CombinedOutput(); err != nil {
					t.Errorf("%+v: %v: %s", o, err, out)
				}
			})
		}
		for range 10 {
			sign(t, key)
		}
		wg.Wait()
		r.Close()
	}
}

// TestKill kills a process with signal 9 before and after every command of every
// operation, and at random moments. What is left is the old state or the new
// one, and no persistent key that no file names.
func TestKill(t *testing.T) {
	sim := tpmtest.Simulator(t)
	faults := tpmtest.Inject(t, sim)
	rm := tpmtest.NewResourceManager(t, faults)
	socket := tpmtest.ServeUnix(t, rm)
	kills := 0
	for _, operation := range []string{"create", "delete", "delete persistent", "import", "persist", "unpersist"} {
		t.Run(operation, func(t *testing.T) {
			for point := 0; ; point++ {
				r, dir := prepareKill(t, rm, operation)
				cmd := childCommand(socket, dir, operation)
				block := faults.Add(tpmtest.Fault{Block: true, Executed: point%2 == 1, Skip: point / 2})
				exited := make(chan error, 1)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				go func() { exited <- cmd.Wait() }()
				select {
				case <-block.Blocked():
					cmd.Process.Kill()
					<-exited
					kills++
				case err := <-exited: // all commands have passed
					faults.Clear()
					checkKill(t, sim, r)
					if err != nil {
						t.Errorf("the child process: %v", err)
					}
					return
				}
				faults.Clear()
				checkKill(t, sim, r)
			}
		})
		t.Run(operation+" at random", func(t *testing.T) {
			for range 15 {
				r, dir := prepareKill(t, rm, operation)
				cmd := childCommand(socket, dir, operation)
				// A pause before the command gives the child's disk a lead.
				block := faults.Add(tpmtest.Fault{Block: true, Skip: rand.IntN(6)})
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				exited := make(chan error, 1)
				go func() { exited <- cmd.Wait() }()
				select {
				case <-block.Blocked():
					block.Release()
					for range rand.IntN(200_000) { // it runs on; some ten µs
					}
					cmd.Process.Kill()
					<-exited
				case <-exited:
				}
				kills++
				faults.Clear()
				checkKill(t, sim, r)
			}
		})
	}
	t.Logf("killed %d times", kills)
}

// prepareKill makes the state before an operation, in a new folder.
func prepareKill(t *testing.T, rm *tpmtest.ResourceManager, operation string) (*rig, string) {
	t.Helper()
	r := newRig(t, rm)
	dir := filepath.Dir(r.config.Dir)
	switch operation {
	case "create":
	case "import":
		_, text := wrap(t, rm, elliptic.P256())
		if err := os.WriteFile(filepath.Join(dir, "wrapped.pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		create(t, r.Store, "key", tpm.KeyOptions{})
	}
	if operation == "unpersist" || operation == "delete persistent" {
		if err := r.Persist(t.Context(), "key", handle); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	return r, dir
}

func checkKill(t *testing.T, sim *tpmtest.Sim, r *rig) {
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
	if n := len(persistent(t, sim)); n > len(names) {
		t.Errorf("%d persistent keys, and %d files", n, len(names))
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if n := len(persistent(t, sim)); n != 0 {
		t.Errorf("%d persistent keys that no file names", n)
	}
	sign(t, create(t, s, "key", tpm.KeyOptions{}))
}
