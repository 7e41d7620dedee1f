// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestPCRs: a key that is bound to PCRs does not sign after one was extended,
// and signs again after a reboot that measures the same.
func TestPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[2:] {
		r := newRig(t, sim, withPIN("1234"))
		bound, unbound := create(t, r.Store, "bound", o), create(t, r.Store, "unbound", tpm.KeyOptions{PCRs: []int{8}})
		sign(t, bound)
		tpmtest.ExtendPCR(t, sim, 7, "another boot loader")
		for range 2 {
			_, err := bound.Sign(t.Context(), []byte("input"))
			wantError(t, err, keystore.ErrPolicy)
		}
		sign(t, unbound)
		// Nor in a way around the policy, as with an empty password.
		if _, err := r.Open(t.Context(), "bound"); err != nil {
			t.Errorf("Open: %v", err)
		}
		sim.Reset()
		sign(t, bound)
		r.Close()
	}
}

// TestOtherPCRs: that some other PCR is extended between the policy and the
// signature, as Linux's IMA does all the time, goes unnoticed.
func TestOtherPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[2:] {
		r := newRig(t, sim, withPIN("1234"))
		key := create(t, r.Store, "key", o)
		sign(t, key)
		block := r.faults.Add(tpmtest.Fault{Command: ccSign, Block: true})
		go func() {
			<-block.Blocked()
			tpmtest.ExtendPCR(t, sim, 10, "a file")
			block.Release()
		}()
		r.calls.Reset()
		sign(t, key)
		if n := r.calls.Count(ccSign); n != 2 {
			t.Errorf("%+v: TPM2_Sign was sent %d times, want 2: the first has met another PCR counter", o, n)
		}
		r.Close()
	}
}

// TestOtherPCRsAgain: that goes on for many signatures in a row, within one session.
func TestOtherPCRsAgain(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[2:] {
		r := newRig(t, sim, withPIN("1234"))
		key := create(t, r.Store, "key", o)
		sign(t, key)
		r.faults.Add(tpmtest.Fault{Command: ccPolicyPCR, Executed: true, Times: 20, Answer: func(real []byte) []byte {
			tpmtest.ExtendPCR(t, sim, 10, "a file")
			return real
		}})
		r.calls.Reset()
		sign(t, key)
		if n := r.calls.Count(ccSign); n != 21 {
			t.Errorf("%+v: TPM2_Sign was sent %d times, want 21", o, n)
		}
		if n := r.calls.Count(ccStartSession, ccCreatePrimary, ccLoad); n != 0 {
			t.Errorf("%+v: key or session was made anew: %s", o, tpmtest.Names(r.calls.Codes()))
		}
		r.Close()
	}
}

// TestOtherPCRsForEver: a program that extends PCRs without a pause makes the key
// unavailable and not lost, and the wait for it ends with the context.
func TestOtherPCRsForEver(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[2:] {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			key := create(t, r.Store, "key", o)
			sign(t, key)
			r.faults.Add(tpmtest.Fault{Command: ccPolicyPCR, Executed: true, Times: -1, Answer: func(real []byte) []byte {
				tpmtest.ExtendPCR(t, sim, 10, "a file")
				return real
			}})
			start := time.Now()
			_, err := key.Sign(t.Context(), []byte("input"))
			wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCPCRChanged)
			if took := time.Since(start); took < tpm.PolicyPatience || took > tpm.PolicyPatience+time.Second {
				t.Errorf("%+v: it took %v, want %v", o, took, tpm.PolicyPatience)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = key.Sign(ctx, []byte("input"))
			wantError(t, err, context.DeadlineExceeded)
			r.faults.Clear()
			sign(t, key)
		})
	}
}

// TestIMA: beside a program that extends another PCR 30 times a second, keys that are
// bound to PCRs sign all the same, and need not twice as many commands.
func TestIMA(t *testing.T) {
	swtpm := tpmtest.FromTPM(tpmtest.Dial(t, tpmtest.SWTPM(t, tpmtest.SWConfig{})))
	for _, o := range kinds[2:] {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := newRig(t, swtpm, withPIN("1234"))
			key := create(t, r.Store, "key", o)
			sign(t, key)
			r.calls.Reset()
			sign(t, key)
			usual := r.calls.Count()
			extends := extendOften(t, tpmtest.Dial(t, swtpm))
			r.calls.Reset()
			for n := 0; n < 200 || extends() < 10; n++ {
				sign(t, key)
			}
			n := r.calls.Count(ccSign)
			if count := r.calls.Count(); count > 2*usual*n {
				t.Errorf("%d commands for %d signatures, want at most twice %d for each", count, n, usual)
			}
			t.Logf("%d signatures beside %d extends took %d commands", n, extends(), r.calls.Count())
		})
	}
}

// extendOften extends PCR 10 as IMA does, 30 times a second and not in time with anything,
// until the end of the test.
func extendOften(t *testing.T, conn transport.TPM) (count func() int64) {
	t.Helper()
	var extends atomic.Int64
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(30, 10))
		for next := time.Now(); ; {
			next = next.Add(time.Duration(random.ExpFloat64() * float64(time.Second/30)))
			select {
			case <-time.After(time.Until(next)):
				tpmtest.ExtendPCR(t, conn, 10, "a file")
				extends.Add(1)
			case <-end:
				return
			}
		}
	}()
	t.Cleanup(func() { close(end); <-ended })
	return extends.Load
}
