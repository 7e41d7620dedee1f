// SPDX-License-Identifier: Apache-2.0

package evidence

import "fmt"

// Codes of [Error]: what the attester answers with.
const (
	CodeInvalidRequest           = "invalid_request"            // an enrolment that cannot be read
	CodeUnsupportedEvidence      = "unsupported_evidence"       // a format or algorithm that is not evaluated here
	CodeInvalidEvidence          = "invalid_evidence"           // evidence that does not hold
	CodePlatformEvidenceRequired = "platform_evidence_required" // none, or not enough of it
	CodeUnsupportedKey           = "unsupported_key"            // the instance key is of a kind that is not attested
	CodeKeyNotProtected          = "key_not_protected"          // the instance key was, or can be, outside the TPM
	CodeAKNotEnrolled            = "ak_not_enrolled"            // no certificate of this attester for the attestation key
	CodeInvalidAK                = "invalid_ak"                 // the attestation key is of a kind that proves nothing
	CodeActivationFailed         = "activation_failed"          // the answer to the enrolment's challenge is wrong
	CodeUntrustedTPM             = "untrusted_tpm"              // who made the TPM is unknown, or it is not welcome
	CodePolicyViolation          = "policy_violation"           // sound, but not allowed: asking again is of no use
)

// An Error says why evidence or an enrolment was refused.
type Error struct {
	Code   string // for the device
	Reason string // for the log alone: what was found wrong helps whoever forges it
}

// Error has the reason: it is for the log, and not for the device.
func (e *Error) Error() string { return "evidence: " + e.Code + ": " + e.Reason }

func refuse(code, format string, args ...any) error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}
