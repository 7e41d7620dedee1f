// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

var kinds = []tpm.KeyOptions{{}, {PIN: true}, {PCRs: []int{7}}, {PCRs: []int{7}, PIN: true}}

// TestReset: after a reboot of the TPM in the middle of a run, signing goes on
// without the caller noticing.
func TestReset(t *testing.T) {
	sim := tpmtest.Simulator(t)
	old := tpmtest.NewResourceManager(t, sim)
	old.BeforeLinux610 = true
	for name, device := range map[string]tpmtest.Device{
		"raw": sim, "resource manager": tpmtest.NewResourceManager(t, sim), "old resource manager": old,
	} {
		for _, o := range kinds {
			t.Run(fmt.Sprintf("%s %+v", name, o), func(t *testing.T) {
				r := newRig(t, device, withPIN("1234"))
				key, other := create(t, r.Store, "key", o), create(t, r.Store, "other", o)
				for _, reset := range []func(){sim.Reset, sim.PowerOff, sim.Reset} {
					sign(t, key)
					reset()
					sign(t, key)
					sign(t, other)
				}
			})
		}
	}
}

// TestHandedInReset: the same on a connection that cannot be opened anew.
func TestHandedInReset(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Dial, c.TPM = nil, sim })
	for _, o := range kinds {
		key := create(t, r.Store, fmt.Sprintf("key-%t-%d", o.PIN, len(o.PCRs)), o)
		sign(t, key)
		sim.Reset()
		sign(t, key)
	}
}

// TestResetCommands: what a reset costs.
func TestResetCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	sim.PowerOff()
	r.calls.Reset()
	sign(t, key)
	r.calls.Want(t, ccSign, ccStartup, ccSign, ccFlush, ccCreatePrimary, ccLoad, ccFlush, ccSign)
	if dialled, _ := r.calls.Dials(); dialled != 0 {
		t.Errorf("the connection was opened %d times anew, want 0: it was not lost", dialled)
	}
}

// TestPowerCut: swtpm is killed and started again.
func TestPowerCut(t *testing.T) {
	for name, config := range map[string]tpmtest.SWConfig{
		"unix": {}, "tcp": {TCP: true}, "not started": {NotStarted: true},
	} {
		t.Run(name, func(t *testing.T) {
			sw := tpmtest.SWTPM(t, config)
			r := newRig(t, sw, withPIN("1234"))
			// Not all kinds: when a key with a PIN was in use, a power cut counts
			// as a wrong PIN, and after three this TPM is locked out.
			for _, o := range []tpm.KeyOptions{{}, {PCRs: []int{7}}, {PIN: true}} {
				key := create(t, r.Store, fmt.Sprintf("key-%t-%d", o.PIN, len(o.PCRs)), o)
				sign(t, key)
				sw.Restart()
				sign(t, key)
			}
			key := open(t, r.Store, "key-false-0")
			sw.Stop()
			for range 2 {
				_, err := key.Sign(t.Context(), []byte("input"))
				wantError(t, err, keystore.ErrUnavailable)
			}
			sw.Restart()
			sign(t, key)
			r.Close()
		})
	}
}

// TestUnplugged: the device goes and comes again.
func TestUnplugged(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, tpmtest.NewResourceManager(t, sim))
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	r.faults.Add(tpmtest.Fault{Err: syscall.ENODEV, Lost: true})
	gone := r.faults.Add(tpmtest.Fault{Dial: true, Err: syscall.ENOENT, Times: 2})
	for range 2 {
		_, err := key.Sign(t.Context(), []byte("input"))
		wantError(t, err, keystore.ErrUnavailable, syscall.ENOENT)
	}
	sign(t, key)
	if gone.Fired() != 2 {
		t.Errorf("the device was tried %d times while it was gone, want 2", gone.Fired())
	}
}

// TestOnlyOneRepetition: what fails again is not tried for ever.
func TestOnlyOneRepetition(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, fault := range []tpmtest.Fault{
		{RC: tpm2.TPMRCReferenceH0}, {RC: tpm2.TPMRCReferenceS0}, {RC: tpm2.TPMRCHandle}, {RC: tpm2.TPMRCContextGap},
		{RC: tpm2.TPMRCObjectMemory}, {Err: syscall.EFAULT},
		{Err: errors.New("lost"), Lost: true},
	} {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		fault.Command, fault.Times = ccSign, -1
		injection := r.faults.Add(fault)
		if _, err := key.Sign(t.Context(), []byte("input")); err == nil {
			t.Errorf("%+v: no error", fault)
		} else {
			hasSentinel(t, err)
		}
		if n := injection.Fired(); n != 2 {
			t.Errorf("%+v: %d times TPM2_Sign, want 2", fault, n)
		}
		r.Close()
	}
}

// TestAnotherTPM: a key of a TPM that was exchanged or cleared is lost, and
// neither missing nor replaced.
func TestAnotherTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds {
		r := newRig(t, sim, withPIN("1234"))
		key := create(t, r.Store, "key", o)
		sim.Manufacture()
		s := r.reopen(t)
		_, err := s.Open(t.Context(), "key")
		wantError(t, err, keystore.ErrKeyLost)
		s.Close()
		_, err = keystore.OpenOrCreate(t.Context(), r.Store, "key")
		if err == nil { // "key" was loaded, and its context saved
			_, err = key.Sign(t.Context(), []byte("input"))
		}
		wantError(t, err, keystore.ErrKeyLost)
		_, err = r.Create(t.Context(), "key")
		wantError(t, err, keystore.ErrExists)
		if err := r.Delete(t.Context(), "key"); err != nil {
			t.Error(err)
		}
		sign(t, create(t, r.Store, "key", o))
		r.Close()
	}
}

// TestWrongSignature: a signature that is not the key's is not handed out, and
// the key is loaded again.
func TestWrongSignature(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	flip := func(real []byte) []byte {
		real[60] ^= 1
		return real
	}
	r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Answer: flip})
	sign(t, key)
	if n := r.calls.Count(ccSign); n != 2 {
		t.Errorf("%d TPM2_Sign were sent, want 2", n)
	}
	s := r.reopen(t)
	defer s.Close()
	key = open(t, s, "key")
	r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Answer: flip, Times: 2})
	_, err := key.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrUnavailable)
}

// TestSlotTaken: after a reset of a raw device another program loads a key into the
// slot where ours was. Its signatures are not taken for ours.
func TestSlotTaken(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		sign(t, key)
		sim.Reset()
		bareSigner(t, sim)()        // at the same handle
		time.Sleep(2 * time.Second) // of the bubble
		r.calls.Reset()
		for range 3 {
			sign(t, key)
		}
		if n := r.calls.Count(ccSign); n != 4 {
			t.Errorf("TPM2_Sign was sent %d times, want 4: once to the other key", n)
		}
	})
}

// TestExclusiveOnHandedInConnection: what was made by a command whose answer was
// damaged is flushed, where no other program is, also when the connection cannot be
// opened anew.
func TestExclusiveOnHandedInConnection(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	r.Close()
	conn, err := r.faults.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := r.config
	config.Dial, config.TPM, config.Exclusive = nil, conn, true
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }})
	sign(t, open(t, s, "key"))
	if h := tpmtest.Handles(t, sim, tpm2.TPMHTTransient); len(h) != 1 {
		t.Errorf("objects %x are in the TPM, want the key alone", h)
	}
}

// TestNeedsTest: a TPM that has not tested itself is told to, and the command repeated;
// once for each command.
func TestNeedsTest(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	r.calls.Reset()
	r.faults.Add(tpmtest.Fault{Command: ccSign, RC: tpm2.TPMRCNeedsTest})
	sign(t, key)
	r.calls.Want(t, ccSign, tpm2.TPMCCSelfTest, ccSign)
	r.calls.Reset()
	r.faults.Add(tpmtest.Fault{Command: ccSign, RC: tpm2.TPMRCNeedsTest, Times: -1})
	_, err := key.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCNeedsTest)
	if n := r.calls.Count(tpm2.TPMCCSelfTest); n != 1 {
		t.Errorf("TPM2_SelfTest was sent %d times, want once", n)
	}
}
