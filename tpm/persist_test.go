package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

const handle = 0x81010001

func persistent(t *testing.T, sim *tpmtest.Sim) []tpm2.TPMHandle {
	t.Helper()
	return tpmtest.Handles(t, sim, tpm2.TPMHTPersistent)
}

func TestPersist(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			before := create(t, r.Store, "key", o)
			for range 2 { // again is nothing
				if err := r.Persist(t.Context(), "key", handle); err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, r.Persist(t.Context(), "key", handle+1), keystore.ErrExists)
			if n := len(persistent(t, sim)); n != 1 {
				t.Fatalf("%d persistent keys, want 1", n)
			}
			key := open(t, r.Store, "key")
			sign(t, key)
			sign(t, before)
			sim.Reset()
			sign(t, key)
			for range 2 {
				if err := r.Unpersist(t.Context(), "key"); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(persistent(t, sim)); n != 0 {
				t.Fatalf("%d persistent keys, want 0", n)
			}
			sign(t, key) // from the file again
			sign(t, open(t, r.Store, "key"))

			// The file has forgotten the handle. Delete knows the next one, also
			// of a file that Open would refuse.
			if err := r.Persist(t.Context(), "key", handle+1); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(r.config.Dir, "key.pem"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			if n := len(persistent(t, sim)); n != 0 {
				t.Errorf("%d persistent keys after Delete, want 0", n)
			}
		})
	}
}

// TestPersistCommands: opening a persistent key loads nothing.
func TestPersistCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	r.calls.Reset()
	key := open(t, r.Store, "key")
	sign(t, key)
	sign(t, key)
	r.calls.Want(t, ccReadPublic, ccSign, ccSign)
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
}

// TestPersistNeverEvicts: what others have put at a handle stays.
func TestPersistNeverEvicts(t *testing.T) {
	sim := tpmtest.Simulator(t)
	other := createPrimary(t, sim)
	evict := func(object tpm2.TPMHandle) {
		t.Helper()
		public, err := tpm2.ReadPublic{ObjectHandle: object}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     tpm2.NamedHandle{Handle: object, Name: public.Name},
			PersistentHandle: handle,
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
	}
	evict(other)
	flush(t, sim, other)

	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	wantError(t, r.Persist(t.Context(), "key", handle), keystore.ErrExists)
	sign(t, open(t, r.Store, "key"))
	for _, bad := range []uint32{0, 0x80000000, 0x81800000, 0x40000001, 0xffffffff} {
		if err := r.Persist(t.Context(), "key", bad); err == nil {
			t.Errorf("Persist at 0x%x: no error", bad)
		}
	}

	// Somebody puts another object in the place of the key.
	evict(handle)
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	evict(handle)
	other = createPrimary(t, sim)
	evict(other)
	flush(t, sim, other)
	sign(t, open(t, r.Store, "key"))
	if err := r.Unpersist(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	if n := len(persistent(t, sim)); n != 1 {
		t.Errorf("%d persistent objects, want the other one", n)
	}
	evict(handle)
}

// TestExclusive: what a killed process has left on a raw device is flushed; and
// without Exclusive it is not.
func TestExclusive(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for range 3 {
		createPrimary(t, sim)
		if _, err := (tpm2.StartAuthSession{
			TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)},
			SessionType: tpm2.TPMSEPolicy, AuthHash: tpm2.TPMAlgSHA256, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}).Execute(sim); err != nil {
			t.Fatal(err)
		}
	}
	config := tpm.Config{Dial: sim.Dial, Dir: t.TempDir(), PIN: nil}
	withPIN("1234")(&config)
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(t.Context(), "key")
	wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCObjectMemory)
	s.Close()
	if n := len(tpmtest.Handles(t, sim, tpm2.TPMHTTransient)); n != 3 {
		t.Errorf("%d objects are left, want the 3 of others", n)
	}
	r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{PIN: true}))
}

// TestPersistElsewhere: a handle that could not be had does not bind the key.
func TestPersistElsewhere(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	r.faults.Add(tpmtest.Fault{Command: ccEvictControl, RC: tpm2.TPMRCNVDefined})
	err := r.Persist(t.Context(), "key", handle)
	wantError(t, err, keystore.ErrExists, tpm2.TPMRCNVDefined) // another program was faster
	if err := r.Persist(t.Context(), "key", handle+1); err != nil {
		t.Fatal(err)
	}
	if h := persistent(t, sim); len(h) != 1 || h[0] != handle+1 {
		t.Errorf("persistent keys %x, want one at %x", h, handle+1)
	}
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
}

// TestPersistDeleted: a key that is deleted while Persist waits does not come
// back.
func TestPersistDeleted(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	block := r.faults.Add(tpmtest.Fault{Command: ccReadPublic, Block: true})
	done := make(chan error)
	go func() { done <- r.Persist(t.Context(), "key", handle) }()
	<-block.Blocked()
	if err := os.Remove(filepath.Join(r.config.Dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	block.Release()
	wantError(t, <-done, keystore.ErrNotFound)
	if names, err := r.List(t.Context()); len(names) != 0 || err != nil {
		t.Errorf("List: %q, %v", names, err)
	}
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("persistent keys %x that no file names", h)
	}
}

// TestPersistBesideDelete: another Store, as of another process, that deletes a
// key while it becomes persistent waits until it is, and removes it from there.
func TestPersistBesideDelete(t *testing.T) {
	sim := tpmtest.Simulator(t)
	rm := tpmtest.NewResourceManager(t, sim)
	r := newRig(t, rm)
	create(t, r.Store, "key", tpm.KeyOptions{})
	config := r.config
	config.Dial = rm.Dial // past the fault
	other, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	block := r.faults.Add(tpmtest.Fault{Command: tpm2.TPMCCEvictControl, Block: true})
	persisted, deleted := make(chan error, 1), make(chan error, 1)
	go func() { persisted <- r.Persist(t.Context(), "key", handle) }()
	<-block.Blocked() // the file has the handle, the TPM not the key
	cancelled, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := other.Delete(cancelled, "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete while Persist runs: %v, want context.DeadlineExceeded", err)
	}
	go func() { deleted <- other.Delete(t.Context(), "key") }()
	block.Release()
	if err := errors.Join(<-persisted, <-deleted); err != nil {
		t.Error(err)
	}
	if names, err := other.List(t.Context()); len(names) != 0 || err != nil {
		t.Errorf("keys %q, %v", names, err)
	}
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("persistent keys %x are left", h)
		sim.Manufacture()
	}
}
