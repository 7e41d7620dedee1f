// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// handle is one that no TPM has used for its endorsement key.
const handle = 0x81010f01

func persistent(t *testing.T, chip transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	return tpmtest.Handles(t, chip, tpm2.TPMHTPersistent)
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
	var saved tpm2.TPMHandle
	for range 3 {
		createPrimary(t, sim)
		session, err := tpm2.StartAuthSession{
			TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)},
			SessionType: tpm2.TPMSEPolicy, AuthHash: tpm2.TPMAlgSHA256, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
		saved = session.SessionHandle
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
	// A session whose context was saved is not loaded, and takes room all the same.
	if _, err := (tpm2.ContextSave{SaveHandle: saved}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
	for _, kind := range []tpm2.TPMHT{tpm2.TPMHTTransient, tpm2.TPMHTHMACSession, 3} {
		if handles := tpmtest.Handles(t, sim, kind); len(handles) != 0 {
			t.Errorf("handles %x are left", handles)
		}
	}
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
	if d, err := r.Describe(t.Context(), "key"); err != nil || d.Handle != 0 {
		t.Errorf("the file says that the key is at 0x%x: %v", d.Handle, err)
	}
	if err := r.Persist(t.Context(), "key", handle+1); err != nil {
		t.Fatal(err)
	}
	if h := persistent(t, sim); len(h) != 1 || h[0] != handle+1 {
		t.Errorf("persistent keys %x, want one at %x", h, uint32(handle+1))
	}
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
}

// TestPersistBounds: handles that are not the owner's are refused before anything is
// sent.
func TestPersistBounds(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	r.calls.Reset()
	for _, bad := range []uint32{0, 0x40000001, 0x80000000, 0x80ffffff, 0x81800000, 0x81ffffff, 0x82000000, 0xffffffff} {
		if err := r.Persist(t.Context(), "key", bad); err == nil {
			t.Errorf("Persist at 0x%x: no error", bad)
		}
	}
	r.calls.Want(t)
	for _, good := range []uint32{0x81000000, 0x817fffff} {
		if err := r.Persist(t.Context(), "key", good); err != nil {
			t.Errorf("Persist at 0x%x: %v", good, err)
		}
		if err := r.Unpersist(t.Context(), "key"); err != nil {
			t.Error(err)
		}
	}
}
