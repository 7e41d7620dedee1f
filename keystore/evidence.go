// SPDX-License-Identifier: Apache-2.0

package keystore

import "context"

// An AttestableKey is a Key whose device can prove two things to a Client Attester: that
// the key lives in the device, and what the device has booted. To collect evidence,
// assert this interface on a Key. Keys in software do not implement it.
//
// The device vouches with an attestation key of its own (AK), which it uses for
// nothing else. An attester certifies that key once (enrolment) by a challenge
// that only the device with a certain endorsement key (EK) can answer (TPM 2.0
// Library, part 1, "Credential Protection").
//
// Errors match the same sentinels as those of Sign.
type AttestableKey interface {
	Key

	// Evidence proves where the key lives, and, for the PCRs asked for, what
	// was booted. It can be made again at any time.
	Evidence(ctx context.Context, req EvidenceRequest) (Evidence, error)

	// Enrolment returns what an attester needs to make a challenge for the
	// device's attestation key.
	Enrolment(ctx context.Context) (Enrolment, error)

	// Activate answers the challenge of an enrolment (TPM2_ActivateCredential):
	// credential is the contents of a TPM2B_ID_OBJECT and secret those of a
	// TPM2B_ENCRYPTED_SECRET, both without their size. It fails unless this
	// device has both keys that the challenge was made for.
	Activate(ctx context.Context, credential, secret []byte) ([]byte, error)

	// AKCertificates returns the certificate chain (DER, leaf first) that the
	// attester of that name has issued for the attestation key, and
	// SetAKCertificates keeps it over restarts. No chain is an empty result,
	// not an error. A chain for another attestation key is not returned.
	AKCertificates(ctx context.Context, attester string) ([][]byte, error)
	SetAKCertificates(ctx context.Context, attester string, chain [][]byte) error
}

// EvidenceRequest says what to prove.
type EvidenceRequest struct {
	// Binding is what every statement is bound to, as its qualifying data: 32
	// bytes, SHA-256 over the attester's challenge, ".", and the key's RFC 7638
	// thumbprint in base64url.
	Binding []byte
	// PCRs are the platform configuration registers to quote, of the SHA-256
	// bank. Empty means no quote and no boot log.
	PCRs []int
	// AKCertificates is the chain for the attestation key (DER, leaf first)
	// that goes into the statement.
	AKCertificates [][]byte
}

// Evidence is what a device says of a key and of itself, to be verified by an
// attester.
type Evidence struct {
	// Statement says that the key lives in the device: a CBOR attestation
	// object of format "tpm" (W3C Web Authentication, section 8.3, in the form
	// of draft-ietf-acme-device-attest: no authData).
	Statement []byte
	// Quote says what the PCRs hold; nil if none were asked for.
	Quote *Quote
	// EventLog is the measured-boot log that explains the PCRs (TCG PC Client
	// Platform Firmware Profile), as the device's kernel gives it; nil if the
	// Store has no access to one.
	EventLog []byte
	// UserspaceLog is what the operating system's own programs have measured
	// (systemd: /run/log/systemd/tpm2-measure.log), and IMALog the kernel's list of
	// the files that it has measured; nil as above. They were read after the quote was
	// made, and may say more than it covers.
	UserspaceLog, IMALog []byte
}

// A Quote is a TPM2_Quote of PCRs.
type Quote struct {
	HashAlg   uint16         // TPM_ALG_ID of the bank: 11 for SHA-256
	PCRs      map[int][]byte // their values when they were quoted
	Quoted    []byte         // TPMS_ATTEST
	Signature []byte         // TPMT_SIGNATURE of the attestation key
}

// Enrolment is what an attester needs to know of a device to certify its
// attestation key.
type Enrolment struct {
	EK             []byte   // endorsement public key: SubjectPublicKeyInfo, DER
	EKCertificates [][]byte // DER: the one for EK, then links from it to its maker's root; there may be none
	AK             []byte   // attestation key: TPMT_PUBLIC
}
