// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// TestCheckPCRs: whether PCRs have changed shows without the PIN, whatever sessions
// there are, and leaves nothing in the TPM.
func TestCheckPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, device := range map[string]tpmtest.Device{"raw": sim, "resource manager": tpmtest.NewResourceManager(t, sim)} {
		t.Run(name, func(t *testing.T) {
			sim.Reset()
			for _, o := range kinds {
				r := newRig(t, device, withPIN("1234"))
				key := create(t, r.Store, "key", o)
				sign(t, key)
				r.config.PIN = nil
				blind := r.reopen(t)
				check := func(want error) {
					t.Helper()
					r.calls.Reset()
					if err := blind.CheckPCRs(t.Context(), "key"); !errors.Is(err, want) {
						t.Errorf("%+v: got %v, want %v", o, err, want)
					}
					if n := r.calls.Count(tpm2.TPMCCPolicyPCR); n != len(o.PCRs) {
						t.Errorf("%+v: TPM2_PolicyPCR was sent %d times, want %d", o, n, len(o.PCRs))
					}
					commands := 0
					if len(o.PCRs) > 0 {
						commands = 3
					}
					if len(o.PCRs) > 0 && o.PIN {
						commands = 4
					}
					if n := r.calls.Count(); n != commands {
						t.Errorf("%+v: %d commands, want %d", o, n, commands)
					}
				}
				check(nil)
				check(nil)
				tpmtest.ExtendPCR(t, sim, 7, "another boot loader")
				if want := keystore.ErrPolicy; len(o.PCRs) > 0 {
					check(want)
				} else {
					check(nil)
				}
				sim.Reset()
				check(nil)
				sign(t, key)
				if err := blind.Close(); err != nil {
					t.Error(err)
				}
				r.Close()
			}
		})
	}
	r := newRig(t, sim)
	if err := r.CheckPCRs(t.Context(), "missing"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := r.CheckPCRs(t.Context(), "../key"); err == nil {
		t.Error("a bad name is taken")
	}
}
