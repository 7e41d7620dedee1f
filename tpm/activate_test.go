// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestActivateRefused: a challenge that was not made for the keys of this device.
func TestActivateRefused(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	enrolment := enrol(t, key)
	credential, secret, challenge := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	other := enrolment
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if other.EK, err = x509.MarshalPKIXPublicKey(&stranger.PublicKey); err != nil {
		t.Fatal(err)
	}
	otherCredential, otherSecret, _ := makeCredential(t, tpm2.RSAEKTemplate, other)
	changed := bytes.Clone(credential)
	changed[len(changed)-1] ^= 1
	for name, parts := range map[string][2][]byte{
		"nothing":      {},
		"another EK":   {otherCredential, otherSecret},
		"mixed":        {credential, otherSecret},
		"changed":      {changed, secret},
		"cut off":      {credential[:10], secret},
		"with size":    {append([]byte{0, byte(len(credential))}, credential...), secret},
		"short secret": {credential, secret[:255]},
		"too long":     {make([]byte, 4000), secret},
		"long secret":  {credential, make([]byte, 4000)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := key.Activate(t.Context(), parts[0], parts[1])
			if err == nil || got != nil {
				t.Fatalf("%x, %v", got, err)
			}
			for _, sentinel := range sentinels {
				if errors.Is(err, sentinel) {
					t.Errorf("%q matches %v", err, sentinel)
				}
			}
		})
	}
	got, err := key.Activate(t.Context(), credential, secret)
	if err != nil || !bytes.Equal(got, challenge) {
		t.Errorf("%x, %v", got, err)
	}
}

// TestEndorsementAuth: the password of the endorsement hierarchy is used, stays
// off the bus, and the error says where it goes.
func TestEndorsementAuth(t *testing.T) {
	const password = "password of the endorsement"
	sim := tpmtest.Simulator(t)
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHEndorsement, "", password)
	r := newRig(t, sim, func(c *tpm.Config) { c.EndorsementAuth = []byte(password) })
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	ak := activateWith(t, key, tpm2.RSAEKTemplate).AK
	verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
	if r.calls.Saw([]byte("password of")) {
		t.Error("the password was on the bus")
	}
	r.Close()
	for _, wrong := range []string{"", "wrong"} {
		wrongly := newRig(t, sim, func(c *tpm.Config) { c.EndorsementAuth = []byte(wrong) })
		key := attestable(t, create(t, wrongly.Store, "key", tpm.KeyOptions{}))
		_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
		wantError(t, err, keystore.ErrAuth)
		_, enrolErr := key.Enrolment(t.Context())
		wantError(t, enrolErr, keystore.ErrAuth)
		for _, err := range []error{err, enrolErr} {
			if !bytes.Contains([]byte(err.Error()), []byte("Config.EndorsementAuth")) {
				t.Errorf("%q does not say what to set", err)
			}
		}
		if n := wrongly.calls.Count(ccCertify); n != 0 {
			t.Errorf("%d TPM2_Certify were sent", n)
		}
		wrongly.Close()
	}
}

// TestEndorsementDisabled: what the error says.
func TestEndorsementDisabled(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, RC: tpm2.TPMRCHierarchy})
	_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCHierarchy)
	if !bytes.Contains([]byte(err.Error()), []byte("endorsement hierarchy is disabled")) {
		t.Errorf("%q does not say what is wrong", err)
	}
}

// TestManufacturedTPM: the endorsement keys and certificates that
// swtpm_setup makes, as a TPM's vendor does.
func TestManufacturedTPM(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
	r := newRig(t, sw)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	enrolment := activateWith(t, key, tpm2.RSAEKTemplate)
	if len(enrolment.EKCertificates) != 1 {
		t.Fatalf("%d certificates, want 1", len(enrolment.EKCertificates))
	}
	certificate, err := attest.ParseEKCertificate(enrolment.EKCertificates[0])
	if err != nil || !bytes.Equal(certificate.RawSubjectPublicKeyInfo, enrolment.EK) {
		t.Errorf("the certificate is not the EK's: %v", err)
	}
	if n := r.calls.Count(ccReadPublic); n != 1 {
		t.Errorf("%d TPM2_ReadPublic, want 1: of the persistent endorsement key", n)
	}
	roots, issuers := x509.NewCertPool(), x509.NewCertPool()
	for i, der := range sw.CA(t) {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		[]*x509.CertPool{roots, issuers}[i].AddCert(ca)
	}
	certificate.UnhandledCriticalExtensions = nil // the subject alternative name of a TPM
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: issuers, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	verifyEvidence(t, key, enrolment.AK, prove(t, key, 7), true, 7)
	r.Close()

	// Where the RSA certificate is missing, the P-384 one counts.
	conn, err := sw.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	undefineNV(t, conn, tpm2.TPMRHPlatform, 0x01c00002)
	conn.Close()
	r.Store = r.reopen(t)
	key = open(t, r.Store, "key")
	high := activateWith(t, key, tpm.EKTemplates()[0x01c00016])
	if len(high.EKCertificates) != 1 || bytes.Equal(high.EK, enrolment.EK) || !bytes.Equal(high.AK, enrolment.AK) {
		t.Errorf("enrolment %+v", high)
	}
}
