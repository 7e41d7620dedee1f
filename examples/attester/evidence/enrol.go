// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"

	"github.com/google/go-tpm/tpm2"
)

// Enrolment gives an attestation key a certificate. The device names its EK and
// an AK; it gets a secret, encrypted so that only the TPM with that EK can
// decrypt it, and that TPM only if it has an AK of exactly that Name
// (TPM2_ActivateCredential; TPM 2.0 Library, part 1, "Credential Protection").

// An EnrolmentRequest is what a device says of its keys.
type EnrolmentRequest struct {
	EK             []byte   // SubjectPublicKeyInfo, DER
	EKCertificates [][]byte // DER
	AK             []byte   // TPMT_PUBLIC
}

// An Enrolment waits for the device's answer. The device must be given a few
// minutes for it, and be enrolled once; that is the caller's business.
type Enrolment struct {
	Endorsement
	// Credential and Secret are the challenge for TPM2_ActivateCredential: the
	// contents of its two parameters, without their size.
	Credential, Secret []byte

	ak     []byte // TPMT_PUBLIC
	answer []byte
}

// enrolmentState is what Complete needs of an Enrolment.
type enrolmentState struct {
	Endorsement Endorsement
	AK, Answer  []byte
}

// MarshalBinary returns what [Verifier.Complete] needs of the enrolment. It has the
// answer to the challenge in it: the device must not be able to read it.
func (e *Enrolment) MarshalBinary() ([]byte, error) {
	return json.Marshal(enrolmentState{e.Endorsement, e.ak, e.answer})
}

// UnmarshalBinary reads what MarshalBinary has returned.
func (e *Enrolment) UnmarshalBinary(state []byte) error {
	var read enrolmentState
	if err := json.Unmarshal(state, &read); err != nil {
		return err
	}
	*e = Enrolment{Endorsement: read.Endorsement, ak: read.AK, answer: read.Answer}
	return nil
}

// Enrol verifies the endorsement and the attributes of the attestation key, and
// makes a challenge. An error is an [*Error].
func (v *Verifier) Enrol(request EnrolmentRequest) (*Enrolment, error) {
	s := v.state.Load()
	endorsement, err := s.checkEK(request.EK, request.EKCertificates)
	if err != nil {
		return nil, err
	}
	if _, err := s.registry.admit(endorsement.EK); err != nil {
		return nil, err
	}
	area, _, err := parseAK(request.AK)
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, refuse(CodeInvalidAK, "%v", err)
	}
	ek, err := encapsulationKey(endorsement.key)
	if err != nil {
		return nil, refuse(CodeUntrustedTPM, "%v", err)
	}
	e := &Enrolment{Endorsement: *endorsement, ak: request.AK, answer: make([]byte, 32)}
	rand.Read(e.answer) // never fails (crypto/rand)
	e.Credential, e.Secret, err = tpm2.CreateCredential(rand.Reader, ek, name.Buffer, e.answer)
	if err != nil {
		return nil, refuse(CodeUntrustedTPM, "challenge for the EK: %v", err)
	}
	return e, nil
}

// Complete checks the device's answer and returns the certificate chain of its
// attestation key: DER, leaf first. An error is an [*Error].
func (v *Verifier) Complete(e *Enrolment, answer []byte) ([][]byte, error) {
	if subtle.ConstantTimeCompare(answer, e.answer) != 1 {
		return nil, refuse(CodeActivationFailed, "wrong secret")
	}
	s := v.state.Load()
	if _, err := s.registry.admit(e.EK); err != nil {
		return nil, err
	}
	_, ak, err := parseAK(e.ak)
	if err != nil {
		return nil, err
	}
	certificate, err := s.ca.issue(ak, &e.Endorsement, s.now())
	if err != nil {
		return nil, err
	}
	return [][]byte{certificate, s.ca.certificate.Raw}, nil
}
