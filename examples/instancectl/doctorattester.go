// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

// examineAttester examines whether there is a Client Attester at -attester, and what it
// wants to know. It reports whether to ask it for an attestation.
func (s *setup) examineAttester(ctx context.Context) bool {
	const check = "attester"
	var answer struct {
		Challenge string  `json:"challenge"`
		PCRs      *[]int  `json:"pcrs"`
		Servers   *string `json:"attestation_challenge"` // what an authorization server has here
	}
	place := strings.TrimSuffix(s.flags.attester, "/") + "/challenge"
	resp, err := s.post(ctx, place, &answer)
	switch {
	case resp == nil:
		s.fail(check, reachAdvice(err), "cannot be reached: %v", err)
		return false
	case answer.Servers != nil:
		s.fail(check, "-attester is the Client Attester's URL, which the maker of the device runs", "%s is an authorization server", s.flags.attester)
		return false
	case resp.StatusCode/100 == 3:
		s.fail(check, "name the attester itself with -attester: clients follow no redirect", "%s redirects to %.200q", place, resp.Header.Get("Location"))
		return false
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		s.fail(check, "try again later, or ask the attester's operator", "%s answers %d %s", place, resp.StatusCode, http.StatusText(resp.StatusCode))
		return false
	case resp.StatusCode != http.StatusOK || err != nil || answer.Challenge == "":
		s.fail(check, "correct -attester", "%s answers %d, and not as a Client Attester does", place, resp.StatusCode)
		return false
	}
	_, inTPM := s.key.(keystore.AttestableKey)
	switch {
	case answer.PCRs == nil:
		s.ok(check, "is there, and wants no evidence")
	case !inTPM:
		s.fail(check, "keep the key in a TPM: -store names it", "wants evidence of where the key is kept, and this one is in software")
		return false
	case len(*answer.PCRs) == 0:
		s.ok(check, "is there, and wants evidence that the key is in a TPM")
	default:
		s.ok(check, "is there, and wants evidence that the key is in a TPM, and what the device has booted: PCRs %s",
			strings.Join(strings.Fields(strings.Trim(fmt.Sprint(*answer.PCRs), "[]")), ","))
	}
	return true
}

// attesterAdvice is what to do about the codes of examples/attester/PROTOCOL.md.
var attesterAdvice = map[string]string{
	"invalid_pop":                "correct -attester, which must be what the attester calls itself, or set the clock, or see that the attester knows -client-id",
	"invalid_challenge":          "try again; if it stays so, several attesters behind one address do not share their challenges",
	"invalid_session":            "try again; if it stays so, several attesters behind one address do not share their sessions",
	"invalid_evidence":           "the attester's log says what is wrong with the evidence",
	"platform_evidence_required": "the attester wants to know what the device has booted: -event-log sends the log",
	"unsupported_evidence":       "the attester's operator has to allow this kind of evidence",
	"unsupported_key":            "make a key with -alg ES256, which every attester knows",
	"key_not_protected":          "use a key that was made in the TPM (instancectl key create), and not one that was imported",
	"ak_not_enrolled":            "try again; if it stays so, see the attester's log",
	"activation_failed":          "the TPM is another than its certificate says: see EK certificates",
	"untrusted_tpm":              "the attester has to trust the TPM's maker or know this TPM: see EK certificates, give -ek-certificates, or have it registered by the endorsement key's digest, which instancectl evidence shows",
	"policy_violation":           "the attester does not welcome this device, this key or this -client-id: its log says why",
}

// attestationFailed says why there is no attestation.
func (s *setup) attestationFailed(err error) {
	const check = "attestation"
	var refused *client.AttesterError
	advice := "see the attester, and its log"
	switch {
	case errors.As(err, &refused) && refused.Code == "invalid_pop" && strings.HasSuffix(s.flags.attester, "/"):
		advice = "leave the slash at the end of -attester out"
	case errors.As(err, &refused) && attesterAdvice[refused.Code] != "":
		advice = attesterAdvice[refused.Code]
	case errors.Is(err, client.ErrInvalidAttestation) && s.flags.attestation != "":
		advice = "have the attestation provisioned anew, for this key and -client-id"
	case errors.Is(err, client.ErrInvalidAttestation):
		advice = "the attester's operator has to mend it, or correct -client-id"
	case errors.Is(err, client.ErrNoEvidence):
		advice = "keep the key in a TPM: -store names it"
	case errors.Is(err, keystore.ErrLockedOut):
		advice = "see lockout"
	case errors.Is(err, keystore.ErrAuth):
		advice = "see owner hierarchy and endorsement hierarchy, and -pin-file"
	case errors.Is(err, keystore.ErrPolicy), errors.Is(err, keystore.ErrKeyLost):
		advice = adviceOnKey(err, "")
	case errors.Is(err, keystore.ErrUnavailable):
		advice = "see the TPM"
	case networkAdvice(err) != "":
		advice = networkAdvice(err)
	}
	s.fail(check, advice, "there is none: %s", describe(err))
}
