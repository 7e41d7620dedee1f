// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/tpm"
)

// places opens Stores in one new folder on one TPM.
func places(d tpmtest.Device, change ...func(*tpm.Config)) func(*testing.T) func(*testing.T) keystore.Store {
	return func(t *testing.T) func(*testing.T) keystore.Store {
		config := tpm.Config{Dial: d.Dial, Dir: filepath.Join(t.TempDir(), "keys")}
		for _, f := range change {
			f(&config)
		}
		t.Cleanup(func() { noLeaks(t, d) })
		return func(t *testing.T) keystore.Store {
			s, err := tpm.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			return s
		}
	}
}

func TestConformance(t *testing.T) {
	t.Run("simulator", func(t *testing.T) {
		sim := tpmtest.Simulator(t)
		keystoretest.RunPersistent(t, places(sim))
		t.Run("PIN", func(t *testing.T) { keystoretest.RunPersistent(t, places(sim, withPIN("1234"))) })
		t.Run("resource manager", func(t *testing.T) {
			keystoretest.RunPersistent(t, places(tpmtest.NewResourceManager(t, sim)))
		})
		t.Run("handed in", func(t *testing.T) {
			keystoretest.RunPersistent(t, places(sim, func(c *tpm.Config) { c.Dial, c.TPM = nil, sim }))
		})
		for _, o := range []tpm.KeyOptions{
			{Algorithm: "ES384"},
			{Algorithm: "ES384", PIN: true},
			{PCRs: []int{7}},
			{PCRs: []int{0, 7, 16}, PIN: true},
		} {
			t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
				r := newRig(t, sim, withPIN("1234"))
				keystoretest.RunKey(t, create(t, r.Store, "key", o))
			})
		}
	})
	for name, config := range map[string]tpmtest.SWConfig{"swtpm unix": {}, "swtpm tcp": {TCP: true}} {
		t.Run(name, func(t *testing.T) {
			sw := tpmtest.SWTPM(t, config)
			keystoretest.RunPersistent(t, places(sw))
			t.Run("PIN", func(t *testing.T) { keystoretest.RunPersistent(t, places(sw, withPIN("1234"))) })
		})
	}
}
