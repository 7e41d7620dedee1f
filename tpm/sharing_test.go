// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

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

	block := r.faults.Add(tpmtest.Fault{Command: ccEvictControl, Block: true})
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

// TestLockHeld: a process that hangs while it changes keys does not keep others for
// ever.
func TestLockHeld(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, tpmtest.NewResourceManager(t, sim))
	create(t, r.Store, "key", tpm.KeyOptions{})
	folder, err := privatefile.OpenLock(r.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if locked, known := privatefile.TryLock(folder); !locked {
		t.Fatalf("the folder is not locked (%t)", known)
	}
	synctest.Test(t, func(t *testing.T) {
		s := r.reopen(t)
		defer s.Close()
		start := time.Now()
		wantError(t, s.Delete(context.Background(), "key"), keystore.ErrUnavailable)
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("Delete took %v, want 2 minutes", took)
		}
		sign(t, open(t, s, "key"))
	})
}

// TestNoteWhileLockHeld: what a signature has shown of a key is noted when the process is
// done that changes keys. That keeps no signature longer than its context, and Close not for
// long.
func TestNoteWhileLockHeld(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, test := range map[string]struct {
		patience time.Duration // of the caller
		held     time.Duration // the lock
		took     time.Duration
		noted    bool
	}{
		"free":                   {time.Minute, 0, 0, true},
		"caller waits":           {time.Minute, 300 * time.Millisecond, 300 * time.Millisecond, true},
		"caller goes":            {200 * time.Millisecond, 500 * time.Millisecond, 200 * time.Millisecond, true},
		"process hangs":          {time.Minute, time.Hour, time.Second, false},
		"process hangs, he goes": {200 * time.Millisecond, time.Hour, 200 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tpmtest.NewResourceManager(t, sim))
			text := foreignKey{noDA: true, emptyAuth: true}.file(t, sim)
			path := put(t, r, "key", text)
			folder, err := privatefile.OpenLock(r.config.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			synctest.Test(t, func(t *testing.T) {
				s := r.reopen(t)
				key := open(t, s, "key")
				if test.held > 0 {
					if locked, known := privatefile.TryLock(folder); !locked {
						t.Fatalf("the folder is not locked (%t)", known)
					}
					defer time.AfterFunc(test.held, func() { folder.Close() }).Stop()
				}
				ctx, cancel := context.WithTimeout(t.Context(), test.patience)
				defer cancel()
				start := time.Now()
				if _, err := key.Sign(ctx, []byte("message")); err != nil {
					t.Fatal(err)
				}
				// A lock is tried again each tenth of a second.
				if took := time.Since(start); took < test.took || took > test.took+100*time.Millisecond || took > test.patience {
					t.Errorf("Sign took %v, want %v", took, test.took)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > 1100*time.Millisecond {
					t.Errorf("with Close it took %v", took)
				}
				now, err := os.ReadFile(path)
				if noted := !bytes.Equal(now, text); err != nil || noted != test.noted {
					t.Errorf("noted: %t, %v, want %t", noted, err, test.noted)
				}
			})
		})
	}
}

// TestPersistBesidePersist: of two Stores that give one key a handle each, one
// does, and the other is told.
func TestPersistBesidePersist(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, tpmtest.NewResourceManager(t, sim))
	create(t, r.Store, "key", tpm.KeyOptions{})
	other := r.reopenAfter(t)
	block := r.faults.Add(tpmtest.Fault{Command: ccEvictControl, Block: true})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- r.Persist(t.Context(), "key", handle) }()
	<-block.Blocked()
	go func() { second <- other.Persist(t.Context(), "key", handle+1) }()
	block.Release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	wantError(t, <-second, keystore.ErrExists)
	if h := persistent(t, sim); len(h) != 1 {
		t.Errorf("persistent keys %x, want one", h)
	}
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("persistent keys %x are left", h)
		sim.Manufacture()
	}
}

// TestHandleReused: another Store removes a key from its handle and puts another
// one there. The first goes on from its file: no signature is by the other key,
// and its PIN is not tried on that.
func TestHandleReused(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			sim.Manufacture() // no wrong tries are counted
			r := newRig(t, tpmtest.NewResourceManager(t, sim), withPIN("1234"))
			other := r.reopenAfter(t)
			create(t, other, "key", o)
			if err := other.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			key := open(t, r.Store, "key")
			sign(t, key)
			if err := other.Unpersist(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			create(t, other, "another", o)
			if err := other.Persist(t.Context(), "another", handle); err != nil {
				t.Fatal(err)
			}
			prove(t, key)
			for range 3 {
				sign(t, key)
			}
			if status, err := other.Status(t.Context()); err != nil || status.Lockout.Failures > 1 {
				t.Errorf("%d wrong tries were counted, want 1 at the most: %v", status.Lockout.Failures, err)
			}
			if err := other.Delete(t.Context(), "another"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPersistTakesNothingOver: a key that somebody else has made persistent is
// not taken for what Persist has done, and stays.
func TestPersistTakesNothingOver(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	path := filepath.Join(r.config.Dir, "key.pem")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	// As of a Store on a copy of the folder.
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, r.Persist(t.Context(), "key", handle), keystore.ErrExists)
	if err := errors.Join(r.Unpersist(t.Context(), "key"), r.Delete(t.Context(), "key")); err != nil {
		t.Error(err)
	}
	if h := persistent(t, sim); len(h) != 1 {
		t.Errorf("persistent keys %x, want the other's", h)
	}
	sim.Manufacture()
}

// TestHandleTakenByKeyWithPIN: a key without a PIN is not taken for one that has
// one because another key, which has, is at its handle now.
func TestHandleTakenByKeyWithPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	asked := 0
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) {
			asked++
			return []byte("1234"), nil
		}
	})
	evict := func(object tpm2.TPMHandle, name tpm2.TPM2BName) {
		_, err := tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     tpm2.NamedHandle{Handle: object, Name: name},
			PersistentHandle: handle,
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, use := range map[string]func(*testing.T, keystore.Key){
		"Sign":     sign,
		"Evidence": func(t *testing.T, key keystore.Key) { prove(t, key) },
	} {
		t.Run(name, func(t *testing.T) {
			create(t, r.Store, "key", tpm.KeyOptions{})
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			key := open(t, r.Store, "key")
			use(t, key)
			ours, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(sim)
			if err != nil {
				t.Fatal(err)
			}
			evict(handle, ours.Name)
			template := tpm2.ECCSRKTemplate
			template.ObjectAttributes.Restricted, template.ObjectAttributes.Decrypt = false, false
			template.ObjectAttributes.SignEncrypt = true
			template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})
			another, err := tpm2.CreatePrimary{
				PrimaryHandle: tpm2.TPMRHOwner,
				InSensitive: tpm2.TPM2BSensitiveCreate{
					Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("another")}},
				},
				InPublic: tpm2.New2B(template),
			}.Execute(sim)
			if err != nil {
				t.Fatal(err)
			}
			evict(another.ObjectHandle, another.Name)
			defer evict(handle, another.Name)
			flush(t, sim, another.ObjectHandle)

			for range 2 {
				use(t, key)
			}
			if asked != 0 {
				t.Errorf("the PIN was asked for %d times", asked)
			}
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Error(err)
			}
		})
	}
}
