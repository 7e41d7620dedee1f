// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

func newECDSA(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func spkiOf(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// issueCA makes the certificate of a CA.
func issueCA(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a link"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestEKCertificateElsewhere: a certificate that the TPM does not have itself.
func TestEKCertificateElsewhere(t *testing.T) {
	sim := tpmtest.Simulator(t)
	high := tpm.EKTemplates()[0x01c00014]
	rsaLeaf := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	eccLeaf := issue(t, endorsementPublic(t, sim, tpm2.ECCEKTemplate))
	highLeaf := issue(t, endorsementPublic(t, sim, high))
	foreign, link := issue(t, newECDSA(t)), issueCA(t)
	inNV := func(leaf []byte) func(t *testing.T) {
		return func(t *testing.T) {
			defineNV(t, sim, 0x01c00002, ownerNV, len(leaf), leaf)
			t.Cleanup(func() { undefineNV(t, sim, tpm2.TPMRHOwner, 0x01c00002) })
		}
	}
	for name, tt := range map[string]struct {
		tpm      func(t *testing.T)
		given    [][]byte
		want     [][]byte
		template tpm2.TPMTPublic // nil: fails
	}{
		"RSA":                             {nil, [][]byte{rsaLeaf}, [][]byte{rsaLeaf}, tpm2.RSAEKTemplate},
		"ECC":                             {nil, [][]byte{eccLeaf}, [][]byte{eccLeaf}, tpm2.ECCEKTemplate},
		"of the high range":               {nil, [][]byte{highLeaf}, [][]byte{highLeaf}, high},
		"with a link before":              {nil, [][]byte{link, rsaLeaf}, [][]byte{rsaLeaf, link}, tpm2.RSAEKTemplate},
		"with another TPM's":              {nil, [][]byte{foreign, eccLeaf}, [][]byte{eccLeaf, foreign}, tpm2.ECCEKTemplate},
		"instead of the TPM's":            {inNV(rsaLeaf), [][]byte{eccLeaf}, [][]byte{eccLeaf}, tpm2.ECCEKTemplate},
		"a link to the TPM's":             {inNV(rsaLeaf), [][]byte{link}, [][]byte{rsaLeaf, link}, tpm2.RSAEKTemplate},
		"the TPM's once more":             {inNV(rsaLeaf), [][]byte{rsaLeaf}, [][]byte{rsaLeaf}, tpm2.RSAEKTemplate},
		"another TPM's alone":             {nil, [][]byte{foreign}, nil, tpm2.TPMTPublic{}},
		"a link alone, and a TPM without": {nil, [][]byte{link}, nil, tpm2.TPMTPublic{}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.tpm != nil {
				tt.tpm(t)
			}
			r := newRig(t, sim, func(c *tpm.Config) { c.EKCertificates = tt.given })
			defer r.Close()
			key := create(t, r.Store, "key", tpm.KeyOptions{})
			if tt.want == nil {
				_, err := attestable(t, key).Enrolment(t.Context())
				if wantError(t, err, keystore.ErrUnavailable); !strings.Contains(err.Error(), "none of the certificates in Config.EKCertificates") {
					t.Error(err)
				}
				return
			}
			if got := activateWith(t, key, tt.template).EKCertificates; !slices.EqualFunc(got, tt.want, bytes.Equal) {
				t.Errorf("%d certificates, want %d, or another order", len(got), len(tt.want))
			}
		})
	}

	for name, given := range map[string][][]byte{"not a certificate": {rsaLeaf, []byte("PEM")}, "16 certificates": slices.Repeat([][]byte{rsaLeaf}, 16)} {
		_, err := tpm.Open(t.Context(), tpm.Config{Dial: sim.Dial, Dir: filepath.Join(t.TempDir(), "keys"), EKCertificates: given})
		if err == nil || !strings.Contains(err.Error(), "Config.EKCertificates: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCertificateOfAnotherEK: a TPM whose endorsement seed was changed after it
// was certified makes another key. That is said before the attester is blamed.
func TestCertificateOfAnotherEK(t *testing.T) {
	sim := tpmtest.Simulator(t)
	other := endorsementPublic(t, sim, tpm2.RSAEKTemplate)
	der := issue(t, other)
	sim.Manufacture()
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	for name, kept := range map[string]bool{"made": false, "persistent": true} {
		t.Run(name, func(t *testing.T) {
			if kept {
				persist(t, sim, tpm2.RSAEKTemplate)
			}
			r := newRig(t, sim)
			defer r.Close()
			key := create(t, r.Store, "key", tpm.KeyOptions{})
			credential, secret, _ := makeCredential(t, tpm2.RSAEKTemplate, enrol(t, key))
			r.calls.Reset()
			_, err := attestable(t, key).Activate(t.Context(), credential, secret)
			wantError(t, err, keystore.ErrUnavailable)
			if !strings.Contains(err.Error(), "not that of its certificate (NV index 0x01c00002)") {
				t.Error(err)
			}
			if n := r.calls.Count(ccActivateCredential); n != 0 {
				t.Errorf("%d TPM2_ActivateCredential", n)
			}
			sign(t, key)
		})
	}
}

// TestReadLockedNV: what is locked until the next start is not there.
func TestReadLockedNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	attributes := ownerNV
	attributes.ReadSTClear = true
	defineNV(t, sim, 0x01c00002, attributes, len(der), der)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	if n := len(enrol(t, key).EKCertificates); n != 1 {
		t.Fatalf("%d certificates before the lock", n)
	}
	conn := tpmtest.Dial(t, sim)
	read, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(0x01c00002)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.NVReadLock{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(0x01c00002), Name: read.NVName},
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	r.calls.Reset()
	if n := len(enrol(t, key).EKCertificates); n != 0 {
		t.Errorf("%d certificates after the lock", n)
	}
	if n := r.calls.Count(ccNVRead); n != 0 {
		t.Errorf("%d times TPM2_NV_Read of a locked index", n)
	}
}

// TestNVPassword: an index that has a password is not there. Nothing is tried that the
// TPM would count, however often it is asked, and what else is in it is still found.
func TestNVPassword(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, index := range []tpm2.TPMHandle{0x01c00002, 0x01c00004, 0x01c00100} {
		for _, noDA := range []bool{false, true} {
			for _, byOwner := range []bool{false, true} {
				der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
				public := tpm2.TPMSNVPublic{
					NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(der)),
					Attributes: tpm2.TPMANV{OwnerWrite: true, AuthRead: true, OwnerRead: byOwner, NoDA: noDA},
				}
				_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, Auth: tpm2.TPM2BAuth{Buffer: []byte("password")}, PublicInfo: tpm2.New2B(public)}.Execute(sim)
				if err != nil {
					t.Fatal(err)
				}
				writeNV(t, sim, index, der)
				r := newRig(t, sim)
				key := create(t, r.Store, "key", tpm.KeyOptions{})
				for range 2 {
					status(t, r.Store)
					want := 0
					if byOwner && index == 0x01c00002 {
						want = 1
					}
					if n := len(enrol(t, key).EKCertificates); n != want {
						t.Errorf("0x%08x, noDA %t, read by the owner %t: %d certificates, want %d", index, noDA, byOwner, n, want)
					}
				}
				if n := wrongTries(t, sim); n != 0 {
					t.Errorf("0x%08x, noDA %t, read by the owner %t: %d wrong tries", index, noDA, byOwner, n)
				}
				r.Close()
				undefineNV(t, sim, tpm2.TPMRHOwner, index)
			}
		}
	}
}
