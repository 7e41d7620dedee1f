// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

var (
	binding     = bytes.Repeat([]byte{0xb1}, sha256.Size)
	certificate = []byte{0x30, 0} // nobody here looks into it
	allPCRs     = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}
)

const (
	ccCertify            = tpm2.TPMCCCertify
	ccQuote              = tpm2.TPMCCQuote
	ccNVReadPublic       = tpm2.TPMCCNVReadPublic
	ccNVRead             = tpm2.TPMCCNVRead
	ccActivateCredential = tpm2.TPMCCActivateCredential
	ccPolicySecret       = tpm2.TPMCCPolicySecret
)

func attestable(t *testing.T, key keystore.Key) keystore.AttestableKey {
	t.Helper()
	k, ok := key.(keystore.AttestableKey)
	if !ok {
		t.Fatalf("%T is no AttestableKey", key)
	}
	return k
}

func prove(t *testing.T, key keystore.Key, pcrs ...int) keystore.Evidence {
	t.Helper()
	evidence, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{
		Binding: binding, PCRs: pcrs, AKCertificates: [][]byte{certificate},
	})
	if err != nil {
		t.Fatalf("Evidence: %v", err)
	}
	return evidence
}

func enrol(t *testing.T, key keystore.Key) keystore.Enrolment {
	t.Helper()
	enrolment, err := attestable(t, key).Enrolment(t.Context())
	if err != nil {
		t.Fatalf("Enrolment: %v", err)
	}
	return enrolment
}

// devices returns both kinds of TPM, and the kernel's resource manager.
func devices() map[string]func(*testing.T) tpmtest.Device {
	return map[string]func(*testing.T) tpmtest.Device{
		"simulator":        func(t *testing.T) tpmtest.Device { return tpmtest.Simulator(t) },
		"swtpm":            func(t *testing.T) tpmtest.Device { return tpmtest.SWTPM(t, tpmtest.SWConfig{}) },
		"resource manager": func(t *testing.T) tpmtest.Device { return tpmtest.NewResourceManager(t, tpmtest.Simulator(t)) },
	}
}

// TestEvidence: evidence of each kind of key verifies, and the key signs before
// and after.
func TestEvidence(t *testing.T) {
	for name, device := range devices() {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			r := newRig(t, d, withPIN("1234"))
			for i, o := range append(slices.Clone(kinds),
				tpm.KeyOptions{Algorithm: "ES384"}, tpm.KeyOptions{Algorithm: "ES384", PIN: true, PCRs: []int{0, 7}}) {
				t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
					key := create(t, r.Store, fmt.Sprint("key", i), o)
					ak := enrol(t, key).AK
					verifyEvidence(t, key, ak, prove(t, key), true)
					sign(t, key)
					verifyEvidence(t, key, ak, prove(t, key, 17, 0, 7), true, 0, 7, 17)
					verifyEvidence(t, key, ak, prove(t, key, allPCRs...), true, allPCRs...)
					sign(t, key)

					r.Close()
					r.Store = r.reopen(t)
					key = open(t, r.Store, fmt.Sprint("key", i))
					verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
				})
			}
		})
	}
}

// TestEvidencePersistent: of a key at a persistent handle.
func TestEvidencePersistent(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t), withPIN("1234"))
	for i, o := range kinds {
		name := fmt.Sprint("key", i)
		create(t, r.Store, name, o)
		if err := r.Persist(t.Context(), name, 0x81000001); err != nil {
			t.Fatal(err)
		}
		key := open(t, r.Store, name)
		verifyEvidence(t, key, enrol(t, key).AK, prove(t, key, 7), true, 7)
		if err := r.Unpersist(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEvidenceImported: evidence of a key that was made elsewhere says so.
func TestEvidenceImported(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	_, wrapped := wrap(t, sim, elliptic.P256())
	key, err := r.Import(t.Context(), "imported", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	evidence := prove(t, key, 7)
	verifyEvidence(t, key, enrol(t, key).AK, evidence, false, 7)
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](readStatement(t, evidence.Statement).Public)
	if err != nil {
		t.Fatal(err)
	}
	if public.ObjectAttributes.FixedTPM || public.ObjectAttributes.FixedParent {
		t.Error("the imported key is fixed to the TPM")
	}
}

// TestEvidenceWithoutCertificates: there is no empty x5c.
func TestEvidenceWithoutCertificates(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	evidence, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	if err != nil {
		t.Fatal(err)
	}
	readStatement(t, evidence.Statement)
	if bytes.Contains(evidence.Statement, []byte("x5c")) {
		t.Errorf("the statement %x has certificates", evidence.Statement)
	}
}

// TestEvidenceRequest: bad requests are refused before anything is sent.
func TestEvidenceRequest(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t), func(c *tpm.Config) {
		c.EventLog = func(context.Context) ([]byte, error) {
			t.Error("the log was read")
			return nil, nil
		}
	})
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	r.calls.Reset()
	for name, req := range map[string]keystore.EvidenceRequest{
		"no binding":    {},
		"short binding": {Binding: binding[1:]},
		"long binding":  {Binding: append(binding, 0)},
		"negative PCR":  {Binding: binding, PCRs: []int{-1}},
		"no such PCR":   {Binding: binding, PCRs: []int{24}},
		"PCR twice":     {Binding: binding, PCRs: []int{7, 7}},
	} {
		if evidence, err := key.Evidence(t.Context(), req); err == nil || evidence.Statement != nil {
			t.Errorf("%s: %v, %v", name, evidence, err)
		}
	}
	if n := r.calls.Count(); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
}

// TestEvidenceAfterPCRChange: a key whose PCRs have changed does not sign any
// more, but the device can still say so.
func TestEvidenceAfterPCRChange(t *testing.T) {
	for name, device := range devices() {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			r := newRig(t, d, withPIN("1234"))
			for i, o := range []tpm.KeyOptions{{PCRs: []int{16}}, {PCRs: []int{16}, PIN: true}} {
				key := create(t, r.Store, fmt.Sprint(i), o)
				sign(t, key)
				r.Close()
				extend(t, d, 16)
				r.Store = r.reopen(t)
				key = open(t, r.Store, fmt.Sprint(i))
				verifyEvidence(t, key, enrol(t, key).AK, prove(t, key, 16), true, 16)
				_, err := key.Sign(t.Context(), []byte("input"))
				wantError(t, err, keystore.ErrPolicy)
			}
		})
	}
}

func extend(t *testing.T, d tpmtest.Device, pcr int) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tpmtest.ExtendPCR(t, conn, pcr, "event")
}

// TestEvidenceWrongPIN: a wrong PIN is tried once, and the PIN is never on the
// bus.
func TestEvidenceWrongPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		pin := "right PIN of the key"
		r := newRig(t, sim, func(c *tpm.Config) {
			c.PIN = func(context.Context, string) ([]byte, error) { return []byte(pin), nil }
		})
		key := create(t, r.Store, "key", o)
		pin = "wrong PIN of the key"
		r.calls.Reset()
		_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
		wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
		if n := r.calls.Count(ccCertify); n != 1 {
			t.Errorf("%d TPM2_Certify were sent, want 1", n)
		}
		pin = "right PIN of the key"
		prove(t, key)
		if r.calls.Saw([]byte("PIN of the key")) {
			t.Error("the PIN was on the bus")
		}
		r.Close()
	}
}

// TestEvidenceAdminWithPolicy: a key that TPM2_Certify would need a policy for
// is told apart before the TPM counts a failure.
func TestEvidenceAdminWithPolicy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	writeKey(t, sim, r.config.Dir, "key", func(public *tpm2.TPMTPublic) { public.ObjectAttributes.AdminWithPolicy = true })
	key := open(t, r.Store, "key")
	sign(t, key)
	_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	wantError(t, err, keystore.ErrPolicy, errors.ErrUnsupported)
	if n := r.calls.Count(ccCertify); n != 0 {
		t.Errorf("%d TPM2_Certify were sent", n)
	}
}
