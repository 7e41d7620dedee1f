// SPDX-License-Identifier: Apache-2.0

// Package evidence verifies what a device with a TPM 2.0 says of itself: that a
// Client Instance Key lives in the TPM, and what the device has booted. It is
// the part of the reference Client Attester that an auditor should read, from
// [Verifier.Verify] downwards:
//
//   - verifier.go: the order of all checks
//   - ek.go, roots.go, names.go, crl.go, rootfiles.go: who made the TPM
//   - registry.go: which device the TPM is in
//   - ak.go, enrol.go, akca.go: the TPM's attestation key
//   - statement.go, attest.go, key.go: the key lives in the TPM (TPM2_Certify)
//   - quote.go, bootlog.go, secureboot.go: what was booted (TPM2_Quote, measured-boot log)
//   - laterlogs.go, userspacelog.go, imalog.go: and what came after that
//   - reference.go, differences.go, reachable.go, verdict.go: what to think of it, and the claims
//   - structure.go: decoding
//
// Nothing that a device says of itself becomes a claim. Its model comes from the
// registry, which knows it by the endorsement key; its software from reference
// values that match what the TPM has quoted.
//
// Everything here is safe for concurrent use.
package evidence

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Config describes a Verifier. Roots and CA are required.
type Config struct {
	Roots *Roots // TPM makers
	CA    *CA    // for attestation keys
	// Registry knows the devices. Nil: every genuine TPM is welcome, and
	// attestations name no model.
	Registry *Registry
	// Reference knows what devices should have booted. Nil: what they have
	// booted is not asked for.
	Reference *Reference
	Now       func() time.Time // nil means time.Now
}

// A Verifier verifies evidence.
type Verifier struct{ state atomic.Pointer[state] }

// state is what a Verifier knows at one time. It is replaced, and never changed.
type state struct {
	roots     *Roots
	ca        *CA
	registry  *Registry
	reference *Reference
	now       func() time.Time
}

// New checks the configuration and returns a Verifier.
func New(cfg Config) (*Verifier, error) {
	if cfg.Roots == nil || cfg.CA == nil {
		return nil, errors.New("evidence: Roots or CA is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	v := new(Verifier)
	v.state.Store(&state{roots: cfg.Roots, ca: cfg.CA, registry: cfg.Registry, reference: cfg.Reference, now: cfg.Now})
	return v, nil
}

// Update replaces what the operator has written down. What was begun before goes
// on with what was there then. Roots must not be nil; the others are as in Config.
func (v *Verifier) Update(roots *Roots, registry *Registry, reference *Reference) {
	next := *v.state.Load()
	next.roots, next.registry, next.reference = roots, registry, reference
	v.state.Store(&next)
}

// PCRs returns the PCRs to be quoted, in ascending order; empty if none are.
func (v *Verifier) PCRs() []int {
	reference := v.state.Load().reference
	if reference == nil {
		return []int{}
	}
	return slices.Clone(reference.pcrs)
}

// Device returns what is known of a device that may be attested, and the claims
// that follow from this alone. That its TPM is genuine has not been looked at.
func (v *Verifier) Device(ek string) (Device, map[string]any, error) {
	device, err := v.state.Load().registry.admit(ek)
	if err != nil {
		return Device{}, nil, err
	}
	return device, deviceClaims(device), nil
}

// A Request is evidence and what it must be bound to.
type Request struct {
	// Challenge is the attester's. That it is fresh is the caller's business.
	Challenge string
	// Key is the public Client Instance Key, and Thumbprint its RFC 7638
	// thumbprint. That the sender holds the private key is the caller's business.
	Key        *ecdsa.PublicKey
	Thumbprint string
	// Evidence is a JSON object. See PROTOCOL.md for its form.
	Evidence []byte
}

// A Result is what evidence has shown.
type Result struct {
	// EK is the TPM's identity (see Endorsement). It is for the log, and there
	// as soon as it is known, also together with an error.
	EK string
	// Claims are for the attestation.
	Claims map[string]any
	// Details are for the log.
	Details []slog.Attr
}

// Verify checks evidence from the outside in: first whose signature counts, then
// what is signed, and last whether that is welcome. An error is an [*Error].
func (v *Verifier) Verify(request Request) (Result, error) {
	return v.state.Load().verify(request)
}

func (s *state) verify(request Request) (Result, error) {
	var result Result
	message, statement, err := parseMessage(request.Evidence)
	if err != nil {
		return result, err
	}

	// Who speaks: an attestation key that has enrolled, in a TPM that is still
	// taken for genuine, and welcome.
	if len(statement.Certificates) == 0 {
		return result, refuse(CodeAKNotEnrolled, "no x5c")
	}
	ak, endorsement, err := s.ca.verify([]byte(statement.Certificates[0]), s.now())
	if err != nil {
		return result, refuse(CodeAKNotEnrolled, "certificate of the AK: %v", err)
	}
	result.EK = endorsement.EK
	result.Details = append(result.Details, slog.String("tpm_endorsement", endorsement.by()))
	device, err := s.registry.admit(endorsement.EK)
	if err != nil {
		return result, err
	}
	if err := s.checkAgain(endorsement); err != nil {
		return result, err
	}

	// What it says of the key.
	binding := sha256.Sum256([]byte(request.Challenge + "." + request.Thumbprint))
	certified, err := checkKey(statement, ak, binding[:], request.Key)
	if err != nil {
		return result, err
	}
	result.Claims = deviceClaims(device)
	result.Claims["tpm_endorsement"] = endorsement.by()
	if s.reference == nil {
		return result, nil
	}

	// What it says of the boot.
	if message.Platform == nil || len(message.Platform.Quotes) == 0 {
		return result, refuse(CodePlatformEvidenceRequired, "no quote")
	}
	if n := len(message.Platform.Quotes); n != 1 {
		return result, refuse(CodeInvalidEvidence, "%d quotes", n)
	}
	var booted boot
	booted.pcrs, err = checkQuote(&message.Platform.Quotes[0], ak, binding[:], s.reference.pcrs, certified)
	if err != nil {
		return result, refuse(CodeInvalidEvidence, "quote: %v", err)
	}
	if err := s.reference.replay(message.Platform, &booted, &result); err != nil {
		return result, err
	}

	// What to think of it.
	judged, err := s.reference.judge(&booted)
	if err != nil {
		return result, err
	}
	if judged.notOEM != nil && !*judged.oemboot {
		result.Details = append(result.Details, slog.String("secure_boot", judged.notOEM.Error()))
	}
	if len(judged.notes) > 0 {
		result.Details = append(result.Details, slog.String("boot_log", strings.Join(judged.notes, "; ")))
	}
	s.reference.addPlatformClaims(result.Claims, device, endorsement, judged)
	return result, nil
}
