// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestEvidenceCommands: which commands evidence is, exactly.
func TestEvidenceCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	quote := []tpm2.TPMCC{ccCreatePrimary, ccCertify, ccPCRRead, ccQuote, ccFlush}
	for _, tt := range []struct {
		options     tpm.KeyOptions
		first, warm []tpm2.TPMCC
		sign        []tpm2.TPMCC // afterwards
	}{
		{tpm.KeyOptions{}, quote, quote, []tpm2.TPMCC{ccSign}},
		{tpm.KeyOptions{PIN: true}, quote, quote, []tpm2.TPMCC{ccSign}},
		{tpm.KeyOptions{PCRs: []int{7}}, quote, quote, []tpm2.TPMCC{ccPolicyPCR, ccSign}}, // in the session of Create
		{tpm.KeyOptions{PCRs: []int{7}, PIN: true}, quote, quote, []tpm2.TPMCC{ccPolicyAuthValue, ccPolicyPCR, ccSign}},
	} {
		t.Run(fmt.Sprintf("%+v", tt.options), func(t *testing.T) {
			asked := 0
			r := newRig(t, sim, func(c *tpm.Config) {
				c.PIN = func(context.Context, string) ([]byte, error) {
					asked++
					return []byte("1234"), nil
				}
			})
			key := create(t, r.Store, "key", tt.options)
			asked = 0
			r.calls.Reset()
			prove(t, key, 0, 1, 2, 3, 4, 5, 6, 7)
			r.calls.Want(t, tt.first...)
			r.calls.Reset()
			prove(t, key, 7)
			r.calls.Want(t, tt.warm...)
			r.calls.Reset()
			sign(t, key)
			r.calls.Want(t, tt.sign...)
			if want := map[bool]int{true: 1}[tt.options.PIN]; asked != want {
				t.Errorf("the PIN was asked for %d times, want %d", asked, want)
			}
			if n := len(tpmtest.Handles(t, sim, tpm2.TPMHTTransient)); n != 1 {
				t.Errorf("%d objects in the TPM, want the key alone", n)
			}
		})
	}
	t.Run("more", func(t *testing.T) {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		r.calls.Reset()
		prove(t, key)
		r.calls.Want(t, ccCreatePrimary, ccCertify, ccFlush)
		r.calls.Reset()
		prove(t, key, allPCRs...)
		r.calls.Want(t, ccCreatePrimary, ccCertify, ccPCRRead, ccPCRRead, ccPCRRead, ccQuote, ccFlush)
	})
}

// TestEvidenceSlots: with one of three slots taken by another program, ten keys
// take turns at evidence, enrolment and signing.
func TestEvidenceSlots(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := createPrimary(t, sim)
	defer flush(t, sim, other)
	var keys []keystore.Key
	for i := range 10 {
		keys = append(keys, create(t, r.Store, fmt.Sprint(i), tpm.KeyOptions{}))
	}
	ak := enrol(t, keys[0]).AK
	for i, key := range keys {
		verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
		sign(t, keys[(i+5)%10])
		activate(t, sim, key)
		sign(t, key)
	}
	if n := r.calls.Count(ccCertify); n != 10 {
		t.Errorf("%d TPM2_Certify were sent, want 10", n)
	}
}

// TestEvidenceIdleSession: the session that evidence has opened ends when nothing
// follows.
func TestEvidenceIdleSession(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for open, o := range map[int]tpm.KeyOptions{1: {PIN: true}, 2: {PIN: true, PCRs: []int{7}}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			prove(t, create(t, r.Store, "key", o))
			for _, want := range []int{open, 0} {
				if n := len(tpmtest.Handles(t, sim, tpm2.TPMHTHMACSession)); n != want {
					t.Errorf("%+v: %d sessions are open, want %d", o, n, want)
				}
				time.Sleep(tpm.IdleTime + time.Millisecond)
				synctest.Wait()
			}
		})
	}
}
