// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// rig is a Store on a TPM, with what tests put in between:
// Store, calls, faults, the device that was given, chip, TPM.
type rig struct {
	*tpm.Store
	calls  *tpmtest.Recorder // what the Store sends
	faults *tpmtest.Faults
	config tpm.Config
}

// newRig opens a Store on d. At the end of the test it is closed, and must have
// left nothing in the TPM.
func newRig(t *testing.T, d tpmtest.Device, change ...func(*tpm.Config)) *rig {
	t.Helper()
	r := &rig{faults: tpmtest.Inject(t, d)}
	r.calls = tpmtest.Record(r.faults)
	r.config = tpm.Config{Dial: r.calls.Dial, Dir: filepath.Join(memoryDir(t), "keys")}
	for _, f := range change {
		f(&r.config)
	}
	r.Store = r.reopen(t)
	t.Cleanup(func() {
		r.faults.Clear()
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, open := r.calls.Dials(); open != 0 {
			t.Errorf("%d connections are open after Close", open)
		}
		noLeaks(t, d)
	})
	return r
}

// memoryDir is t.TempDir in memory, where the system has such a file system: hundreds
// of key files that are synchronized with a disk take longer than the TPM.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tpm")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// reopen opens a Store with the rig's configuration.
func (r *rig) reopen(t *testing.T) *tpm.Store {
	t.Helper()
	s, err := tpm.Open(t.Context(), r.config)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func noLeaks(t *testing.T, d tpmtest.Device) {
	t.Helper()
	conn, err := d.Dial(context.Background()) // the test's own context has ended in a Cleanup
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tpmtest.NoLeaks(t, conn)
}

func withPIN(pin string) func(*tpm.Config) {
	return func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) { return []byte(pin), nil }
	}
}

func create(t *testing.T, s *tpm.Store, name string, o tpm.KeyOptions) keystore.Key {
	t.Helper()
	k, err := s.CreateKey(t.Context(), name, o)
	if err != nil {
		t.Fatalf("CreateKey(%q, %+v): %v", name, o, err)
	}
	return k
}

func open(t *testing.T, s *tpm.Store, name string) keystore.Key {
	t.Helper()
	k, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("Open(%q): %v", name, err)
	}
	return k
}

// sign fails the test unless key signs.
func sign(t *testing.T, key keystore.Key) {
	t.Helper()
	signature, err := key.Sign(t.Context(), []byte("input"))
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	if !verify(key, []byte("input"), signature) {
		t.Fatalf("Sign: the signature %x does not verify", signature)
	}
}

func verify(key keystore.Key, input, signature []byte) bool {
	digest := sha256.Sum256(input)
	hash := digest[:]
	if key.Algorithm() == "ES384" {
		digest := sha512.Sum384(input)
		hash = digest[:]
	}
	public := key.Public().(*ecdsa.PublicKey)
	size := (public.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	return ecdsa.Verify(public, hash, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
}

// The commands that the tests count.
const (
	ccContextLoad     = tpm2.TPMCCContextLoad
	ccContextSave     = tpm2.TPMCCContextSave
	ccCreate          = tpm2.TPMCCCreate
	ccCreatePrimary   = tpm2.TPMCCCreatePrimary
	ccEvictControl    = tpm2.TPMCCEvictControl
	ccFlush           = tpm2.TPMCCFlushContext
	ccGetCapability   = tpm2.TPMCCGetCapability
	ccImport          = tpm2.TPMCCImport
	ccLoad            = tpm2.TPMCCLoad
	ccPCRRead         = tpm2.TPMCCPCRRead
	ccPolicyAuthValue = tpm2.TPMCCPolicyAuthValue
	ccPolicyPCR       = tpm2.TPMCCPolicyPCR
	ccReadPublic      = tpm2.TPMCCReadPublic
	ccSign            = tpm2.TPMCCSign
	ccStartSession    = tpm2.TPMCCStartAuthSession
	ccStartup         = tpm2.TPMCCStartup
)
