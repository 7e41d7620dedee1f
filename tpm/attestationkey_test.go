// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

func chain(t *testing.T, key keystore.Key, attester string) [][]byte {
	t.Helper()
	certificates, err := attestable(t, key).AKCertificates(t.Context(), attester)
	if err != nil {
		t.Fatalf("AKCertificates(%q): %v", attester, err)
	}
	return certificates
}

func setChain(t *testing.T, key keystore.Key, attester string, certificates ...[]byte) {
	t.Helper()
	if err := attestable(t, key).SetAKCertificates(t.Context(), attester, certificates); err != nil {
		t.Fatalf("SetAKCertificates(%q): %v", attester, err)
	}
}

// TestAttestationKey: the same one after each kind of restart, for each key of
// a Store; another one in another TPM.
func TestAttestationKey(t *testing.T) {
	sim, sw := tpmtest.Simulator(t), tpmtest.SWTPM(t, tpmtest.SWConfig{})
	for name, tt := range map[string]struct {
		device               tpmtest.Device
		restart, manufacture func()
	}{
		"simulator reset":     {sim, sim.Reset, sim.Manufacture},
		"simulator power off": {sim, sim.PowerOff, sim.Manufacture},
		"swtpm":               {sw, sw.Restart, sw.Manufacture},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.device)
			first := enrol(t, create(t, r.Store, "one", tpm.KeyOptions{})).AK
			if again := enrol(t, create(t, r.Store, "two", tpm.KeyOptions{Algorithm: "ES384"})).AK; !bytes.Equal(again, first) {
				t.Error("another key has another attestation key")
			}
			tt.restart()
			if again := enrol(t, open(t, r.Store, "one")).AK; !bytes.Equal(again, first) {
				t.Error("another attestation key after a restart")
			}
			tt.manufacture()
			if other := enrol(t, create(t, r.Store, "three", tpm.KeyOptions{})).AK; bytes.Equal(other, first) {
				t.Error("the attestation key of another TPM")
			}
			r.Close()
		})
	}
}

// TestAKCertificates: kept over a restart, for each attester, shared by all
// keys, and found by nobody who looks for keys.
func TestAKCertificates(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	one, two := create(t, r.Store, "one", tpm.KeyOptions{}), create(t, r.Store, "two", tpm.KeyOptions{})
	ak := enrol(t, one).AK
	leaf, other, ca := certify(t, ak), certify(t, ak), issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	const attester = "https://attester.example.com/abca"

	r.calls.Reset()
	if got := chain(t, one, attester); len(got) != 0 {
		t.Errorf("certificates from nowhere: %x", got)
	}
	setChain(t, one, attester, leaf, ca)
	setChain(t, one, "https://other.example.com", other)
	r.calls.Want(t) // no command in all of this
	if got := chain(t, two, attester); len(got) != 2 || !bytes.Equal(got[0], leaf) || !bytes.Equal(got[1], ca) {
		t.Errorf("certificates %x", got)
	}
	r.calls.Want(t, ccCreatePrimary, ccFlush)

	r.Close()
	r.Store = r.reopen(t)
	one = open(t, r.Store, "one")
	if got := chain(t, one, "https://other.example.com"); len(got) != 1 || !bytes.Equal(got[0], other) {
		t.Errorf("certificates %x", got)
	}
	if got := chain(t, one, attester+"/"); len(got) != 0 {
		t.Errorf("another attester's certificates: %x", got)
	}
	setChain(t, one, attester, other)
	if got := chain(t, one, attester); len(got) != 1 || !bytes.Equal(got[0], other) {
		t.Errorf("certificates %x, want the new one", got)
	}

	if names, err := r.List(t.Context()); err != nil || len(names) != 2 {
		t.Errorf("List: %q, %v", names, err)
	}
	files, err := filepath.Glob(filepath.Join(r.config.Dir, ".ak-*.pem"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files %q, %v", files, err)
	}
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		if _, err := r.Open(t.Context(), strings.TrimSuffix(filepath.Base(path), ".pem")); err == nil {
			t.Errorf("%s is a key", path)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.config.Dir, ".new-*")); len(left) != 0 {
		t.Errorf("temporary files left: %q", left)
	}
}

// TestAKCertificatesOfAnotherTPM: not returned once the TPM is another, and
// neither are those for another key.
func TestAKCertificatesOfAnotherTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "one", tpm.KeyOptions{})
	setChain(t, key, "another key", issue(t, key.Public()))
	if got := chain(t, key, "another key"); len(got) != 0 {
		t.Errorf("certificates of another key: %x", got)
	}
	setChain(t, key, "attester", certify(t, enrol(t, key).AK))
	sim.Manufacture()
	if got := chain(t, key, "attester"); len(got) != 0 {
		t.Errorf("certificates of another TPM: %x", got)
	}
	key = create(t, r.Store, "two", tpm.KeyOptions{})
	setChain(t, key, "attester", certify(t, enrol(t, key).AK))
	if got := chain(t, key, "attester"); len(got) != 1 {
		t.Error("no certificates after enrolling anew")
	}
}

// TestBadAKCertificates: what is no chain is refused and nothing is written;
// what is in a file and no chain is none.
func TestBadAKCertificates(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	leaf := certify(t, enrol(t, key).AK)
	many := make([][]byte, 9)
	for i := range many {
		many[i] = leaf
	}
	for name, certificates := range map[string][][]byte{
		"nothing":            nil,
		"empty":              {{}},
		"not a certificate":  {{0x30, 0}},
		"cut off":            {leaf[:len(leaf)-1]},
		"followed by no one": {leaf, {1, 2, 3}},
		"two in one":         {append(bytes.Clone(leaf), leaf...)},
		"too many":           many,
	} {
		if err := key.SetAKCertificates(t.Context(), "attester", certificates); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(r.config.Dir, ".ak-*")); len(files) != 0 {
		t.Fatalf("files %q", files)
	}

	setChain(t, key, "attester", leaf)
	files, _ := filepath.Glob(filepath.Join(r.config.Dir, ".ak-*"))
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	r.calls.Reset()
	for name, text := range map[string][]byte{
		"empty":       {},
		"torn":        good[:len(good)/2],
		"no PEM":      []byte("attester"),
		"another PEM": bytes.ReplaceAll(good, []byte("CERTIFICATE"), []byte("PUBLIC KEY")),
		"more":        append(bytes.Clone(good), "more"...),
	} {
		if err := os.WriteFile(files[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := chain(t, key, "attester"); len(got) != 0 {
			t.Errorf("%s: certificates %x", name, got)
		}
	}
	r.calls.Want(t)
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = key.AKCertificates(t.Context(), "attester")
	wantError(t, err, keystore.ErrUnavailable)
	r.Close()
	_, err = key.AKCertificates(t.Context(), "attester")
	wantError(t, err, keystore.ErrClosed)
	wantError(t, key.SetAKCertificates(t.Context(), "attester", [][]byte{leaf}), keystore.ErrClosed)
}
