// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestDeleteDamaged: as long as something is at the persistent handle that a damaged
// file names, the file stays and says so. Nobody would know of the key otherwise.
func TestDeleteDamaged(t *testing.T) {
	sim := tpmtest.Simulator(t)
	damages := map[string]func(text string) string{
		"key":        func(text string) string { return strings.Replace(text, "\nM", "\n!", 1) },
		"key torn":   func(text string) string { return text[:100] + "\n" + text[strings.Index(text, "-----BEGIN TPM2"):] },
		"no key":     func(text string) string { return text[strings.Index(text, "-----BEGIN TPM2"):] },
		"Name":       func(text string) string { return strings.Replace(text, "NAME-----\n", "NAME-----\n!", 1) },
		"torn after": func(text string) string { return text + "-----BEGIN TSS2 PRIVATE KEY-----\n" },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim)
			create(t, r.Store, "key", tpm.KeyOptions{})
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(r.config.Dir, "key.pem")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			put(t, r, "key", []byte(damage(string(whole))))
			err = r.Delete(t.Context(), "key")
			if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "tpm2_evictcontrol -C o -c 0x81010f01") {
				t.Errorf("%q does not say what to do", err)
			}
			disableOwner(t, sim) // all persistent keys seem to be gone
			wantError(t, r.Delete(t.Context(), "key"), keystore.ErrUnavailable)
			sim.Reset()
			if now, err := os.ReadFile(path); err != nil || string(now) != damage(string(whole)) {
				t.Errorf("the file was changed: %v", err)
			}
			cleanUp(t, sim)
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDisabledEndorsement: while the endorsement hierarchy is disabled, a parent in it
// seems to be gone. It is not, and no bus is hostile.
func TestDisabledEndorsement(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	const at = tpm2.TPMHandle(0x81010005)
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(eccPrimary)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	named := tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: named, PersistentHandle: at}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	flush(t, sim, parent.ObjectHandle)
	defer cleanUp(t, sim)
	made, err := tpm2.Create{ParentHandle: tpm2.NamedHandle{Handle: at, Name: parent.Name}, InPublic: tpm2.New2B(signingTemplate())}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, "key", encodeKey(made, binary.BigEndian.AppendUint32([]byte{0}, uint32(at))))
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	put(t, r, "other", encodeKey(made, binary.BigEndian.AppendUint32([]byte{0}, uint32(at))))
	endorsement := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHEndorsement))
	rawCommand(t, sim, tpm2.TPMCCHierarchyControl, tpm2.TPMRHEndorsement, append(endorsement, 0)...)
	for what, do := range map[string]func() error{
		"Open":   func() error { _, err := r.Open(t.Context(), "other"); return err },
		"Delete": func() error { return r.Delete(t.Context(), "key") },
	} {
		err := do()
		if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "endorsement hierarchy is disabled") {
			t.Errorf("%s: %q does not say what is wrong", what, err)
		}
	}
	sim.Reset()
	sign(t, open(t, r.Store, "other"))
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
}
