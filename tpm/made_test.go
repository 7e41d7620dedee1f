// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"crypto/elliptic"
	"slices"
	"strings"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestWrongPCRValues: a key that is bound to values that the PCRs do not have is not
// reported as made.
func TestWrongPCRValues(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[2:] {
		r := newRig(t, sim, withPIN("1234"))
		wrong := tpmtest.Fault{Command: ccPCRRead, Executed: true, Answer: func(real []byte) []byte {
			real[len(real)-1] ^= 1
			return real
		}}
		r.faults.Add(wrong) // is begun anew
		sign(t, create(t, r.Store, "once", o))
		if err := r.Delete(t.Context(), "once"); err != nil {
			t.Fatal(err)
		}
		wrong.Times = -1
		r.faults.Add(wrong)
		_, err := r.CreateKey(t.Context(), "key", o)
		wantError(t, err, keystore.ErrUnavailable)
		if names, err := r.List(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("%+v: %q was left, %v", o, names, err)
		}
		r.faults.Clear()
		sign(t, create(t, r.Store, "key", o))
		r.Close()
	}
}

// TestAnotherTPMGetsNoPIN: a TPM whose storage root key is not the one that the
// folder's keys were made under is given no PIN, and is told by the error.
func TestAnotherTPMGetsNoPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("1234"))
	create(t, r.Store, "old", tpm.KeyOptions{})
	sim.Manufacture()
	s := r.reopenAfter(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		r.calls.Reset()
		_, err := s.CreateKey(t.Context(), "key", o)
		if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "gets no PIN") {
			t.Errorf("%q does not say what is wrong", err)
		}
		if n := r.calls.Count(ccCreate, ccStartSession); n != 0 {
			t.Errorf("%+v: %s were sent", o, tpmtest.Names(r.calls.Codes()))
		}
	}
	// Nor by the way of another program's file.
	put(t, r, "foreign", foreignKey{password: "1234"}.file(t, sim))
	r.calls.Reset()
	_, err := s.Open(t.Context(), "foreign")
	wantError(t, err, keystore.ErrUnavailable)
	// Nor of one that is found out to have a PIN, or was made elsewhere for this TPM.
	put(t, r, "wrong", foreignKey{password: "1234", emptyAuth: true}.file(t, sim))
	_, err = open(t, s, "wrong").Sign(t.Context(), []byte("message"))
	wantError(t, err, keystore.ErrUnavailable)
	_, importable := wrap(t, sim, elliptic.P256(), keyfile.WithUserAuth([]byte("1234")))
	_, err = s.Import(t.Context(), "imported", importable)
	wantError(t, err, keystore.ErrUnavailable)
	if n := r.calls.Count(ccStartSession); n != 0 {
		t.Errorf("a session was salted to another TPM: %s", tpmtest.Names(r.calls.Codes()))
	}
	if names, err := s.List(t.Context()); err != nil || !slices.Equal(names, []string{"foreign", "old", "wrong"}) {
		t.Errorf("keys %q, %v", names, err)
	}

	sign(t, create(t, s, "free", tpm.KeyOptions{}))
	if err := s.Delete(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	sign(t, create(t, s, "key", tpm.KeyOptions{PIN: true}))
	sign(t, open(t, s, "foreign"))
	sign(t, open(t, s, "wrong"))
	if _, err := s.Import(t.Context(), "imported", importable); err != nil {
		t.Error(err)
	}
	forgive(t, sim)
}

// TestManyPCRs: a key is bound to more PCRs than one command reads, in whatever order
// they are named.
func TestManyPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for pcr := range 10 {
		tpmtest.ExtendPCR(t, sim, pcr, string(rune('a'+pcr))) // each has another value
	}
	r := newRig(t, sim)
	pcrs := []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{PCRs: pcrs}))
	if pcrs[0] != 9 {
		t.Error("the caller's PCRs were sorted")
	}
	slices.Sort(pcrs)
	if d := describe(t, r.Store, "key"); !slices.Equal(d.PCRs, pcrs) {
		t.Errorf("the key is bound to %d", d.PCRs)
	}
}
