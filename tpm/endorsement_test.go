// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// TestEnrolment: with each kind of certificate, the best one counts, and the
// key that is activated is that of the certificate.
func TestEnrolment(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	if enrolment := activateWith(t, key, tpm2.RSAEKTemplate); len(enrolment.EKCertificates) != 0 {
		t.Errorf("certificates %x of a TPM that has none", enrolment.EKCertificates)
	}
	templates := tpm.EKTemplates()
	var indexes []tpm2.TPMHandle
	for _, index := range []tpm2.TPMHandle{0x01c00016, 0x01c00014, 0x01c00012, 0x01c0000a, 0x01c00002} { // from the least
		template := templates[index]
		der := issue(t, endorsementPublic(t, sim, template))
		defineNV(t, sim, index, ownerNV, len(der)+100, der)
		indexes = append(indexes, index)
		r.calls.Reset()
		enrolment := activateWith(t, key, template)
		if len(enrolment.EKCertificates) != 1 || !bytes.Equal(enrolment.EKCertificates[0], der) {
			t.Errorf("0x%08x: certificates %x, want %x", index, enrolment.EKCertificates, der)
		}
		if parsed, err := attest.ParseEKCertificate(enrolment.EKCertificates[0]); err != nil || !bytes.Equal(parsed.RawSubjectPublicKeyInfo, enrolment.EK) {
			t.Errorf("0x%08x: the EK is not that of the certificate: %v", index, err)
		}
		if n := r.calls.Count(ccActivateCredential); n != 1 {
			t.Errorf("0x%08x: %d TPM2_ActivateCredential", index, n)
		}
	}
	for _, index := range indexes {
		undefineNV(t, sim, tpm2.TPMRHOwner, index)
	}
	sign(t, key)
}

// TestEnrolmentCommands: what enrolment costs. The endorsement key is not made
// where its certificate tells the public half.
func TestEnrolmentCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	certificate := []tpm2.TPMCC{ccGetCapability, ccNVReadPublic, ccGetCapability, ccNVRead, ccNVRead}
	want := func(codes ...tpm2.TPMCC) {
		t.Helper()
		r.calls.Want(t, append(certificate, codes...)...)
		r.calls.Reset()
	}
	r.calls.Reset()
	enrolment := enrol(t, key)
	want(ccCreatePrimary, ccFlush)
	credential, secret, _ := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	if _, err := attestable(t, key).Activate(t.Context(), credential, secret); err != nil {
		t.Fatal(err)
	}
	codes := r.calls.Codes()[2:] // the instance key makes room
	r.calls.Reset()
	if got, want := tpmtest.Names(codes), tpmtest.Names(append(certificate, ccReadPublic, ccCreatePrimary, ccCreatePrimary,
		ccStartSession, ccPolicySecret, ccActivateCredential, ccFlush, ccFlush, ccFlush)); got != want {
		t.Errorf("Activate:\n got %s\nwant %s", got, want)
	}

	persist(t, sim, tpm2.RSAEKTemplate)
	if _, err := attestable(t, key).Activate(t.Context(), credential, secret); err != nil {
		t.Fatal(err)
	}
	want(ccReadPublic, ccCreatePrimary, ccStartSession, ccPolicySecret, ccActivateCredential, ccFlush, ccFlush)
}

// TestEnrolmentOtherPersistentKey: what somebody else has put at the handle of
// the endorsement key is not taken for it.
func TestEnrolmentOtherPersistentKey(t *testing.T) {
	sim := tpmtest.Simulator(t)
	signing := tpm2.RSAEKTemplate
	signing.ObjectAttributes.UserWithAuth = true
	for name, template := range map[string]tpm2.TPMTPublic{"ECC": tpm2.ECCEKTemplate, "other attributes": signing} {
		sim.Manufacture()
		persist(t, sim, template)
		r := newRig(t, sim)
		if enrolment := activateWith(t, create(t, r.Store, "key", tpm.KeyOptions{}), tpm2.RSAEKTemplate); len(enrolment.EK) < 200 {
			t.Errorf("%s: EK %x", name, enrolment.EK)
		}
		r.Close()
	}
}

// TestAnotherKeyAtEKHandle: a key of the right template at the endorsement key's
// handle is not taken for the one that the certificate is for.
func TestAnotherKeyAtEKHandle(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	another := tpm2.RSAEKTemplate
	another.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: bytes.Repeat([]byte{1}, 256)})
	persist(t, sim, another)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	if enrolment := activateWith(t, key, tpm2.RSAEKTemplate); !bytes.Equal(enrolment.EKCertificates[0], der) {
		t.Error("another certificate")
	}
	cleanUp(t, sim)
}
