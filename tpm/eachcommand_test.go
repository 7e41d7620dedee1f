// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestEachCommandFails lets every command of every operation fail in every way,
// one at a time. The operation then either works or gives an error with a
// sentinel; afterwards it works; and nothing is left in the TPM.
func TestEachCommandFails(t *testing.T) {
	sim := tpmtest.Simulator(t)
	lost := errors.New("lost")
	ways := map[string]tpmtest.Fault{
		"TPM_RC_FAILURE":       {RC: tpm2.TPMRCFailure},
		"TPM_RC_REFERENCE_H0":  {RC: tpm2.TPMRCReferenceH0},
		"TPM_RC_OBJECT_MEMORY": {RC: tpm2.TPMRCObjectMemory},
		"TPM_RC_RETRY":         {RC: tpm2.TPMRCRetry},
		"TPM_RC_INITIALIZE":    {RC: tpm2.TPMRCInitialize},
		"EFAULT":               {Err: syscall.EFAULT},
		"lost":                 {Err: lost, Lost: true},
		"short":                {Answer: func([]byte) []byte { return []byte{0x80} }},
		"lost answer":          {Err: lost, Lost: true, Executed: true},
		"torn answer":          {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"success without more": {Executed: true, Answer: func([]byte) []byte {
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
		}},
	}
	kinds := []tpm.KeyOptions{{}, {PCRs: []int{7}, PIN: true}}
	for name, way := range ways {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s %+v", name, kind), func(t *testing.T) {
				failEach(t, sim, way, kind)
			})
		}
	}
}

func failEach(t *testing.T, sim *tpmtest.Sim, way tpmtest.Fault, kind tpm.KeyOptions) {
	// With Exclusive, since what was made by a command whose answer was lost can
	// be found in no other way.
	exclusive := func(c *tpm.Config) { c.Exclusive = way.Executed || way.Answer != nil }
	defer func() {
		if t.Failed() {
			sim.Manufacture() // so that the next test does not find what this one left
		}
	}()
	r := newRig(t, sim, withPIN("1234"), exclusive)
	create(t, r.Store, "other", tpm.KeyOptions{})
	create(t, r.Store, "key", kind)
	r.Close()
	path := filepath.Join(r.config.Dir, "key.pem")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var total, failed int
	for operation := range 6 {
		for skip, hit := 0, true; hit; skip++ {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			s := r.reopen(t)
			var key keystore.Key
			switch operation { // what is loaded before
			case 0:
				err = os.Remove(path)
				open(t, s, "other")
			case 2:
				key = open(t, s, "key")
				open(t, s, "other") // "key" is not loaded any more, but saved
			case 3:
				open(t, s, "key")
			case 5:
				err = s.Persist(t.Context(), "key", handle)
			}
			if err != nil {
				t.Fatal(err)
			}
			do := func() (err error) {
				switch operation {
				case 0:
					_, err = s.CreateKey(t.Context(), "key", kind)
				case 1:
					_, err = s.Open(t.Context(), "key")
				case 2:
					_, err = key.Sign(t.Context(), []byte("input"))
				case 3:
					err = s.Delete(t.Context(), "key")
				case 4:
					err = s.Persist(t.Context(), "key", handle)
				case 5:
					err = s.Unpersist(t.Context(), "key")
				}
				return err
			}
			fault := way
			fault.Skip = skip
			injection := r.faults.Add(fault)
			err := do()
			hit = injection.Fired() > 0
			r.faults.Clear()
			switch {
			case !hit && err != nil:
				t.Fatal(err)
			case err != nil:
				failed++
				hasSentinel(t, err)
				if names, _ := s.List(t.Context()); operation == 0 && len(names) != 1 {
					t.Errorf("a failed Create left %q", names)
				}
				if err := do(); err != nil && !errors.Is(err, keystore.ErrExists) {
					t.Errorf("operation %d, command %d: afterwards: %v", operation, skip, err)
				}
			}
			if hit {
				total++
			}
			if operation != 3 {
				sign(t, open(t, s, "key"))
			}
			if operation >= 4 {
				if err := s.Delete(t.Context(), "key"); err != nil {
					t.Error(err)
				}
			}
			s.Close()
			noLeaks(t, sim)
			if h := persistent(t, sim); len(h) != 0 {
				t.Fatalf("operation %d, command %d: persistent keys %x left", operation, skip, h)
			}
			if t.Failed() {
				t.Fatalf("operation %d, command %d: %v", operation, skip, err)
			}
		}
	}
	t.Logf("%d failures injected, %d of them were seen by the caller", total, failed)
	if total < 15 {
		t.Errorf("only %d failures injected", total)
	}
}
