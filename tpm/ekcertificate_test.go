// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestEKCertificateInNV: what can be in an NV index, and how it can be read.
func TestEKCertificateInNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	other := issue(t, endorsementPublic(t, sim, tpm2.ECCEKTemplate))
	ownerOnly := tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}
	indexOnly := tpm2.TPMANV{OwnerWrite: true, AuthRead: true, NoDA: true}
	policyOnly := tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true}
	header := append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...)
	wholeHeader := append([]byte{0x10, 0x01, 0x00, byte((len(der) + 2) >> 8), byte(len(der) + 2), 0x10, 0x02}, der...)
	for name, tt := range map[string]struct {
		attributes tpm2.TPMANV
		size       int
		content    []byte
		found      bool
	}{
		"exact":                {ownerNV, len(der), der, true},
		"padded with zeros":    {ownerNV, 2000, append(bytes.Clone(der), make([]byte, 100)...), true},
		"padded with ones":     {ownerNV, 2000, append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 100)...), true},
		"TPM 1.2's header":     {ownerNV, 2000, header, true},
		"TPM 1.2's whole":      {ownerNV, 2000, wholeHeader, true},
		"for RSAES-OAEP":       {ownerNV, len(der), forOAEP(t, der), true},
		"owner only":           {ownerOnly, len(der), der, true},
		"index only":           {indexOnly, len(der), der, true},
		"policy only":          {policyOnly, len(der), der, false},
		"never written":        {ownerNV, len(der), nil, false},
		"another key's kind":   {ownerNV, len(other), other, false},
		"cut off":              {ownerNV, len(der) - 1, der[:len(der)-1], false},
		"all ones":             {ownerNV, 100, bytes.Repeat([]byte{0xff}, 100), false},
		"a header and no more": {ownerNV, 5, header[:5], false},
		"not a certificate":    {ownerNV, 4, []byte{0x30, 2, 5, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			defineNV(t, sim, 0x01c00002, tt.attributes, tt.size, tt.content)
			defer undefineNV(t, sim, tpm2.TPMRHOwner, 0x01c00002)
			enrolment := activateWith(t, key, tpm2.RSAEKTemplate)
			want := der
			if name == "for RSAES-OAEP" {
				want = tt.content
			}
			if found := len(enrolment.EKCertificates) == 1 && bytes.Equal(enrolment.EKCertificates[0], want); found != tt.found {
				t.Errorf("certificates %x", enrolment.EKCertificates)
			}
		})
	}
}

// forOAEP changes what a certificate says its RSA key is for, as old ones have it.
// The signature does not verify any more, which the device does not look at.
func forOAEP(t *testing.T, der []byte) []byte {
	t.Helper()
	rsa, oaep := []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"), []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07")
	if bytes.Count(der, rsa) != 1 {
		t.Fatal("no RSA key, or two")
	}
	return bytes.Replace(der, rsa, oaep, 1)
}

// TestNVOwnerAuth: with a password of the owner hierarchy.
func TestNVOwnerAuth(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}, len(der), der)
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "password of the owner")
	r := newRig(t, sim, func(c *tpm.Config) { c.OwnerAuth = []byte("password of the owner") })
	if enrolment := enrol(t, create(t, r.Store, "key", tpm.KeyOptions{})); len(enrolment.EKCertificates) != 1 {
		t.Error("no certificate")
	}
	if r.calls.Saw([]byte("password of")) {
		t.Error("the password was on the bus")
	}
}

// TestHostileNV: an index that announces much, and a TPM that gives little.
func TestHostileNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	r := newRig(t, sim)
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	empty := []byte{0x80, 0x02, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0}
	r.faults.Add(tpmtest.Fault{Command: ccNVRead, Times: -1, Answer: func([]byte) []byte { return empty }})
	_, err := key.Enrolment(t.Context())
	wantError(t, err, keystore.ErrUnavailable)
	r.faults.Clear()
	r.faults.Add(tpmtest.Fault{Command: ccGetCapability, Times: -1, Executed: true, Answer: func(real []byte) []byte {
		clear(real[10+1+4+4+4:][:4]) // TPM_PT_NV_BUFFER_MAX, the first in the list, is 0
		return real
	}})
	_, err = key.Enrolment(t.Context())
	wantError(t, err, keystore.ErrUnavailable)
	r.faults.Clear()
	r.calls.Reset()
	r.faults.Add(tpmtest.Fault{Command: ccNVReadPublic, Executed: true, Answer: func(real []byte) []byte {
		real[10+2+12], real[10+2+13] = 0xff, 0xff // the size, after index, hash, attributes and an empty policy
		return real
	}})
	enrol(t, key)
	if n := r.calls.Count(ccNVRead); n != 0 {
		t.Errorf("%d times TPM2_NV_Read of an index of 65535 bytes", n)
	}
}

// FuzzTrimCertificate: what is found is a part of the contents that begins like
// a certificate, and is found in itself again.
func FuzzTrimCertificate(f *testing.F) {
	golden := []byte{0x30, 3, 2, 1, 5}
	for _, content := range [][]byte{
		nil, golden, append(bytes.Clone(golden), 0, 0), append([]byte{0x10, 0x01, 0x00, 0, 5}, golden...),
		{0x10, 0x01, 0x00, 0xff, 0xff, 0x30, 0}, {0x30, 0x80, 0, 0}, {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, {0x10, 0x01, 0x00, 0},
	} {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		found := tpm.TrimCertificate(content)
		if found == nil {
			if _, err := x509.ParseCertificate(content); err == nil {
				t.Fatalf("the certificate %x was not found", content)
			}
			return
		}
		if found[0] != 0x30 || !bytes.Contains(content, found) || !bytes.Equal(tpm.TrimCertificate(found), found) {
			t.Fatalf("%x was found in %x", found, content)
		}
	})
}

// TestTrimCertificate: the seeds, and what comes out.
func TestTrimCertificate(t *testing.T) {
	for _, tt := range []struct{ content, want []byte }{
		{[]byte{0x30, 3, 2, 1, 5}, []byte{0x30, 3, 2, 1, 5}},
		{[]byte{0x30, 3, 2, 1, 5, 0xff, 0xff}, []byte{0x30, 3, 2, 1, 5}},
		{[]byte{0x10, 1, 0, 0, 5, 0x30, 3, 2, 1, 5, 9}, []byte{0x30, 3, 2, 1, 5}},
		{[]byte{0x10, 1, 0, 0, 7, 0x10, 2, 0x30, 3, 2, 1, 5, 9}, []byte{0x30, 3, 2, 1, 5}}, // with TCG_FULL_CERT
		{[]byte{0x10, 1, 0, 0, 6, 0x30, 3, 2, 1, 5}, nil},                                  // says more than there is
		{[]byte{0x31, 3, 2, 1, 5}, nil},
		{[]byte{0x10, 0}, nil},
		{[]byte{0x30, 0x80, 0, 0}, nil}, // indefinite length
		{nil, nil},
	} {
		if got := tpm.TrimCertificate(tt.content); !bytes.Equal(got, tt.want) {
			t.Errorf("%x: %x, want %x", tt.content, got, tt.want)
		}
	}
}

// TestNVOwnerAuthMissing: who needs the owner's password is told so, and not of a PIN.
func TestNVOwnerAuthMissing(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}, len(der), der)
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "password of the owner")
	_, err := attestable(t, key).Enrolment(t.Context())
	if wantError(t, err, keystore.ErrAuth); !strings.Contains(err.Error(), "Config.OwnerAuth") || strings.Contains(err.Error(), "PIN") {
		t.Errorf("%q does not say what is missing", err)
	}
}
