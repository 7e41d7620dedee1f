// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestQuoteOfChangingPCRs: values and quote belong together, also while
// something is measured in between.
func TestQuoteOfChangingPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	ak := enrol(t, key).AK
	change := tpmtest.Fault{Command: ccPCRRead, Executed: true, Answer: func(real []byte) []byte {
		tpmtest.ExtendPCR(t, sim, 7, "event")
		return real
	}}
	change.Times = 4
	r.faults.Add(change)
	verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
	if reads, quotes := r.calls.Count(ccPCRRead), r.calls.Count(ccQuote); reads != 5 || quotes != 5 {
		t.Errorf("%d reads and %d quotes, want 5 and 5", reads, quotes)
	}
	change.Times = -1
	injection := r.faults.Add(change)
	_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding, PCRs: []int{7}})
	wantError(t, err, keystore.ErrUnavailable)
	if injection.Fired() != 5 {
		t.Errorf("%d reads, want 5", injection.Fired())
	}
}

// TestEvidenceReset: a reboot of the TPM at any moment goes unnoticed, and both
// statements are of the same boot.
func TestEvidenceReset(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, device := range map[string]tpmtest.Device{"raw": sim, "resource manager": tpmtest.NewResourceManager(t, sim)} {
		t.Run(name, func(t *testing.T) {
			for _, o := range kinds {
				r := newRig(t, device, withPIN("1234"))
				key := create(t, r.Store, "key", o)
				ak := enrol(t, key).AK
				for _, reset := range []func(){sim.Reset, sim.PowerOff} {
					prove(t, key, 7)
					reset()
					verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
				}
				// And in the middle, between the two statements.
				r.faults.Add(tpmtest.Fault{Command: ccCertify, Executed: true, Answer: func(real []byte) []byte {
					sim.Reset()
					return real
				}})
				evidence := prove(t, key, 7)
				verifyEvidence(t, key, ak, evidence, true, 7)
				certified := verifyAttest(t, ak, readStatement(t, evidence.Statement).CertifyInfo, readStatement(t, evidence.Statement).Signature)
				quoted := verifyAttest(t, ak, evidence.Quote.Quoted, evidence.Quote.Signature)
				if certified.ClockInfo.ResetCount != quoted.ClockInfo.ResetCount {
					t.Errorf("certified at reset %d, quoted at reset %d", certified.ClockInfo.ResetCount, quoted.ClockInfo.ResetCount)
				}
				r.Close()
			}
		})
	}
}

// TestEvidenceEachCommandFails lets every command of every operation fail in
// every way, one at a time. Afterwards the operation works, and nothing is left
// in the TPM.
func TestEvidenceEachCommandFails(t *testing.T) {
	sim := tpmtest.Simulator(t)
	lost := errors.New("lost")
	for name, way := range map[string]tpmtest.Fault{
		"TPM_RC_FAILURE":       {RC: tpm2.TPMRCFailure},
		"TPM_RC_REFERENCE_H0":  {RC: tpm2.TPMRCReferenceH0},
		"TPM_RC_OBJECT_MEMORY": {RC: tpm2.TPMRCObjectMemory},
		"lost":                 {Err: lost, Lost: true},
		"lost answer":          {Err: lost, Lost: true, Executed: true},
		"torn answer":          {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"success without more": {Executed: true, Answer: func([]byte) []byte {
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []tpm.KeyOptions{{}, {PIN: true, PCRs: []int{7}}} {
				evidenceFails(t, sim, way, o)
			}
		})
	}
}

func evidenceFails(t *testing.T, sim *tpmtest.Sim, way tpmtest.Fault, o tpm.KeyOptions) {
	exclusive := func(c *tpm.Config) { c.Exclusive = way.Executed || way.Answer != nil }
	leaf := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	for index, content := range map[tpm2.TPMHandle][]byte{0x01c00002: leaf, 0x01c00100: {0x30, 3, 2, 1, 5}} {
		defineNV(t, sim, index, ownerNV, len(content), content)
		defer undefineNV(t, sim, tpm2.TPMRHOwner, index)
	}
	r := newRig(t, sim, withPIN("1234"), exclusive)
	defer func() { r.Close() }() // the last of its Stores
	key := attestable(t, create(t, r.Store, "key", o))
	enrolment := enrol(t, key)
	if err := key.SetAKCertificates(t.Context(), "attester", [][]byte{certify(t, enrolment.AK)}); err != nil {
		t.Fatal(err)
	}
	credential, secret, challenge := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	operations := []func() error{
		func() error {
			_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding, PCRs: []int{0, 7}})
			return err
		},
		func() error {
			got, err := key.Enrolment(t.Context())
			if err == nil && (!bytes.Equal(got.AK, enrolment.AK) || len(got.EKCertificates) != 2) {
				t.Error("another attestation key, or other certificates")
			}
			return err
		},
		func() error {
			got, err := key.Activate(t.Context(), credential, secret)
			if err == nil && !bytes.Equal(got, challenge) {
				t.Error("another secret")
			}
			return err
		},
		func() error {
			chain, err := key.AKCertificates(t.Context(), "attester")
			if err == nil && len(chain) != 1 {
				t.Errorf("%d certificates", len(chain))
			}
			return err
		},
	}
	total := 0
	for i, do := range operations {
		for skip := 0; ; skip++ {
			r.Store.Close()
			r.Store = r.reopen(t)
			key = attestable(t, open(t, r.Store, "key"))
			fault := way
			fault.Skip = skip
			injection := r.faults.Add(fault)
			err := do()
			if injection.Fired() == 0 {
				r.faults.Clear()
				if err != nil {
					t.Errorf("operation %d: %v", i, err)
				}
				break
			}
			total++
			if err != nil {
				wantError(t, err)
				if err := do(); err != nil {
					t.Errorf("operation %d, command %d: afterwards: %v", i, skip, err)
				}
			}
			sign(t, key)
			r.Store.Close()
			noLeaks(t, sim)
			if t.Failed() {
				t.Fatalf("operation %d, command %d: %v", i, skip, err)
			}
		}
	}
	if total < 30 {
		t.Errorf("only %d failures were injected", total)
	}
	t.Logf("%d failures injected", total)
}
