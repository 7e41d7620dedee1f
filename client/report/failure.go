// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// atLast stands for the step that the last exchange ended in.
const atLast StepID = "?"

// explain returns what an error says, which step it belongs to, and what to do.
func explain(err error) Failure {
	return Failure{Step: stepOf(err), Error: plain(err), Remedy: remedy(err)}
}

// plain is an error's text without what a server may have put into it for somebody else:
// x/oauth2 quotes whole answers.
func plain(err error) string {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	status := 0
	if refused.Response != nil {
		status = refused.Response.StatusCode
	}
	text := fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))
	if refused.ErrorCode != "" {
		text += ": " + refused.ErrorCode
	}
	if refused.ErrorDescription != "" {
		text += " (" + refused.ErrorDescription + ")"
	}
	return text
}

// stepOf returns the step that an error belongs to.
func stepOf(err error) StepID {
	var failed *transport.Error
	if errors.As(err, &failed) {
		switch failed.Step {
		case transport.StepMetadata:
			return Metadata
		case transport.StepAttestation:
			return attestationStep(err)
		case transport.StepChallenge:
			return atLast
		case transport.StepSign:
			return MakeProof
		case transport.StepSend:
			return SendProof
		case transport.StepAnswer:
			return Answer
		case transport.StepRetry:
			if step := attestationStep(err); step != atLast {
				return step
			}
			return Answer
		}
	}
	switch {
	case errors.As(err, new(*oauth2.RetrieveError)):
		return Answer
	case errors.Is(err, client.ErrMetadata):
		return Metadata
	}
	return attestationStep(err)
}

// attestationStep returns the step of an error on the way to an attestation.
func attestationStep(err error) StepID {
	var refused *client.AttesterError
	switch {
	case errors.As(err, &refused) || errors.Is(err, client.ErrAttestationRefused):
		return VerifyEvidence
	case errors.Is(err, client.ErrInvalidAttestation):
		return Attestation
	case errors.Is(err, client.ErrAttesterUnavailable) || errors.Is(err, client.ErrNoEvidence) || isKeys(err):
		return SendEvidence
	}
	return atLast
}

// isKeys reports whether an error is one of the key's.
func isKeys(err error) bool {
	for _, sentinel := range []error{
		keystore.ErrNotFound, keystore.ErrExists, keystore.ErrKeyLost, keystore.ErrCorrupt, keystore.ErrLockedOut,
		keystore.ErrAuth, keystore.ErrPolicy, keystore.ErrUnavailable, keystore.ErrClosed,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// settle returns the step of a failure by what was seen before it. r.mu is held.
func (r *Recorder) settle(step StepID) StepID {
	hasKey := false
	for _, s := range r.steps {
		hasKey = hasKey || s.ID == CreateKey && s.Count > 0
	}
	noKey := !hasKey || r.steps[0].ID == CreateKey && len(r.steps) == 1 && len(r.steps[0].Messages) > 0 && r.steps[0].Messages[0].Failed
	switch {
	case noKey && len(r.steps) <= 1 && (step == SendEvidence || step == atLast):
		return CreateKey
	case step != atLast && r.attester == pushAttester && (step == SendEvidence || step == VerifyEvidence || step == Attestation):
		return Provisioned
	case step != atLast && r.attester == selfAttester && (step == SendEvidence || step == VerifyEvidence):
		return Attestation
	case step != atLast:
		return step
	case r.last.step != "":
		return r.last.step
	case r.attester == pushAttester:
		return Provisioned
	case len(r.steps) > 0:
		return r.steps[len(r.steps)-1].ID
	default:
		return CreateKey
	}
}

// remedies say what to do, by what an error is; the first that fits.
var remedies = []struct {
	is   func(error) bool
	says string
}{
	{isA(keystore.ErrKeyLost), "The key cannot be brought back: the TPM was cleared, or this is another TPM. Enrol the device anew, with a new key."},
	{isA(keystore.ErrLockedOut), "The TPM takes no PIN for a while, after too many wrong ones. Wait, or have its owner reset the lockout; instancectl doctor says how long it takes."},
	{isA(keystore.ErrAuth), "Give the right PIN, or the TPM's owner or endorsement password. It was not tried again, since the TPM counts wrong ones."},
	{isA(errors.ErrUnsupported), "The key, or its policy, is of a kind that cannot be used here. Leave its file to the program that made it, and make another key."},
	{isA(keystore.ErrPolicy), "The PCRs are not as they were when the key was made. Boot what was booted then, or make a new key and have it attested."},
	{isA(keystore.ErrCorrupt), "The key's file is damaged. Bring it back from a backup, or enrol the device anew."},
	{isA(keystore.ErrNotFound), "Make the key first, or name the folder and the name that it was made under."},
	{isA(keystore.ErrExists), "Choose another name, or use the key that is there."},
	{isA(keystore.ErrUnavailable), "See whether the TPM is there, switched on in the firmware, and open to this user: instancectl doctor says what is wrong."},
	{isA(client.ErrNoEvidence), "Keep the key in a TPM, or ask an attester that needs no evidence."},
	{isA(client.ErrAttestationRefused), "Ask whoever runs the Client Attester: its log says why. It compares the evidence with its registry of devices and its reference values."},
	{isA(client.ErrInvalidAttestation), "Compare the attestation with what this client needs: its client_id, its key, its algorithm, its times. It is for the attester to issue another one."},
	{isAttesters, "The attester's answer says what it did not like. Its log says more."},
	{isUntrusted, "The server's TLS certificate is not trusted here. Give its root certificate (-ca), and see whether the device's clock is right."},
	{isNotFound, "No server has this name. See whether the URL is right and the device's name server answers."},
	{isA(client.ErrAttesterUnavailable), "See whether the attester's URL is right and can be reached from here. A running device asks again by itself."},
	{isA(context.DeadlineExceeded), "Somebody has not answered in time: see the timeline for who. Try again, or allow more time."},
	{isA(context.Canceled), "The run was ended from outside. Run it again."},
	{isCode("use_fresh_attestation"), "The server wants an attestation that is younger than the attester has given. Compare the two clocks and the server's limit."},
	{isCode("invalid_client_attestation"), "The server did not accept the attestation or its proof: see whether it trusts the attester's key, and whether its policy allows this device and its software. Its log says which."},
	{isCode("invalid_client", "unauthorized_client"), "See whether the client is registered at this server under this client_id, for this method and this grant."},
	{isCode("use_attestation_challenge", "use_dpop_nonce"), "The server refuses its own challenge. See whether its instances share their state, and whether a proxy changes header fields."},
	{isCode("invalid_scope", "invalid_target"), "Ask for a scope and a resource that this client may have at this server."},
	{isCode("invalid_grant"), "The grant is used up, has expired, or was another key's. Get a new one."},
	{isStatus(http.StatusTooManyRequests, http.StatusServiceUnavailable), "The server asks to come back later."},
	{isUnreachable, "See whether the server can be reached from here: name, port, proxy, firewall."},
	{isA(client.ErrMetadata), "Compare the issuer with the one in the server's metadata: they must be the same, byte for byte. The server must publish its endpoints there."},
	{isNetwork, "See whether the server can be reached from here: name, port, proxy, firewall."},
	{isServerError, "The server has a fault of its own: its log says which."},
}

const noRemedy = "The error says what is known. The messages of this step, and of those before it, are below."

// remedy says what to do about an error.
func remedy(err error) string {
	if advice := client.Advice(err); advice != "" {
		return advice + "."
	}
	for _, r := range remedies {
		if r.is(err) {
			return r.says
		}
	}
	return noRemedy
}

func isA(sentinel error) func(error) bool {
	return func(err error) bool { return errors.Is(err, sentinel) }
}

func isAttesters(err error) bool { return errors.As(err, new(*client.AttesterError)) }

func isUntrusted(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError))
}

func isNotFound(err error) bool { return errors.As(err, new(*net.DNSError)) }

func isUnreachable(err error) bool {
	return errors.As(err, new(*net.OpError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isNetwork says less: there is such an error around most others of a request.
func isNetwork(err error) bool { return isUnreachable(err) || errors.As(err, new(*url.Error)) }

// refusal is the status and the error code that a server has answered with.
func refusal(err error) (status int, code string) {
	var retrieve *oauth2.RetrieveError
	var failed *transport.Error
	switch {
	case errors.As(err, &retrieve):
		if code = retrieve.ErrorCode; retrieve.Response != nil {
			status = retrieve.Response.StatusCode
		}
	case errors.As(err, &failed):
		status, code = failed.Status, failed.Code
	}
	return status, code
}

func isCode(codes ...string) func(error) bool {
	return func(err error) bool {
		_, got := refusal(err)
		for _, code := range codes {
			if got == code {
				return true
			}
		}
		return false
	}
}

func isStatus(statuses ...int) func(error) bool {
	return func(err error) bool {
		got, _ := refusal(err)
		for _, status := range statuses {
			if got == status {
				return true
			}
		}
		return false
	}
}

func isServerError(err error) bool {
	status, _ := refusal(err)
	return status >= 500
}
