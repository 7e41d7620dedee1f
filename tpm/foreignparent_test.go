// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestUnnamedParent: tpm2_encodeobject writes the owner hierarchy for every parent
// that is a context. What tpm2_createprimary makes by itself is found all the same.
func TestUnnamedParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, tt := range map[string]struct {
		primary []string
		pin     bool
	}{
		"ecc":     {[]string{"-G", "ecc"}, false},
		"ecc PIN": {[]string{"-G", "ecc"}, true},
		"default": {nil, false},
		"rsa PIN": {[]string{"-G", "rsa"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			r, o := besides(t, sim, func(c *tpm.Config) {
				if tt.pin {
					withPIN("1234")(c)
				}
			})
			o.tool("tpm2_createprimary", append([]string{"-Q", "-C", "o", "-c", o.file("parent")}, tt.primary...)...)
			args := []string{"-Q", "-C", o.file("parent"), "-G", "ecc256:ecdsa-sha256", "-a", plain, "-u", o.file("pub"), "-r", o.file("priv")}
			if tt.pin {
				args = append(args, "-p", "1234")
			}
			o.tool("tpm2_create", args...)
			path := filepath.Join(r.config.Dir, "key.pem")
			o.tool("tpm2_encodeobject", "-C", o.file("parent"), "-u", o.file("pub"), "-r", o.file("priv"), "-o", path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := r.reopen(t)
				key := open(t, s, "key")
				sign(t, key)
				prove(t, key)
				s.Close()
			}
			r.calls.Reset()
			s := r.reopenAfter(t)
			sign(t, open(t, s, "key"))
			if n := r.calls.Count(ccCreatePrimary); n != 1 {
				t.Errorf("TPM2_CreatePrimary was sent %d times once the parent was known, want 1", n)
			}
			s.Close()
			sim.Manufacture()
			s = r.reopenAfter(t)
			_, err := s.Open(t.Context(), "key")
			wantError(t, err, keystore.ErrKeyLost) // which is certain now
		})
	}
}

// TestUnknownParent: a file that does not name its parent is not taken for lost
// because none of the parents that are known has made the key.
func TestUnknownParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := eccPrimary
	other.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte("another")}})
	put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, other, signingTemplate()), ownerParent))
	_, err := r.Open(t.Context(), "key")
	if wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCIntegrity); strings.Contains(err.Error(), "delete the key") || !strings.Contains(err.Error(), "tpm2_encodeobject -C HANDLE") {
		t.Errorf("%q gives the wrong advice", err)
	}
}

// TestGuessMeetsTheTPM: what goes wrong with the TPM while parents are guessed says
// nothing about the key, and nobody is told to enrol with a new one.
func TestGuessMeetsTheTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	tools := eccPrimary
	tools.ObjectAttributes.NoDA = false
	put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, tools, signingTemplate()), ownerParent))
	for code, sentinel := range map[tpm2.TPMRC]error{
		tpm2.TPMRCLockout:       keystore.ErrLockedOut,
		tpm2.TPMRCFailure:       keystore.ErrUnavailable,
		tpm2.TPMRCUpgrade:       keystore.ErrUnavailable,
		tpm2.TPMRCObjectMemory:  keystore.ErrUnavailable,
		tpm2.TPMRCNVUnavailable: keystore.ErrUnavailable,
	} {
		for _, command := range []tpm2.TPMCC{ccCreatePrimary, ccLoad} {
			r.faults.Add(tpmtest.Fault{Command: command, Skip: 1, RC: code, Times: -1})
			_, err := r.Open(t.Context(), "key")
			if wantError(t, err, sentinel, code); strings.Contains(err.Error(), "enrol") {
				t.Errorf("%v of %v: %q gives the wrong advice", code, command, err)
			}
			r.faults.Clear()
		}
	}
	sign(t, open(t, r.Store, "key"))
}
