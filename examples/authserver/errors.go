// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Error codes of RFC 6749 (sections 4.1.2.1 and 5.2), RFC 6750, RFC 8707, RFC
// 9449, and the draft (section 7.4).
const (
	errInvalidRequest           = "invalid_request"
	errInvalidClient            = "invalid_client"
	errInvalidGrant             = "invalid_grant"
	errInvalidScope             = "invalid_scope"
	errInvalidTarget            = "invalid_target"
	errInvalidToken             = "invalid_token"
	errUnauthorizedClient       = "unauthorized_client"
	errUnsupportedGrantType     = "unsupported_grant_type"
	errUnsupportedResponseType  = "unsupported_response_type"
	errInvalidDPoPProof         = "invalid_dpop_proof"
	errUseDPoPNonce             = "use_dpop_nonce"
	errUseAttestationChallenge  = "use_attestation_challenge"
	errUseFreshAttestation      = "use_fresh_attestation"
	errInvalidClientAttestation = "invalid_client_attestation"
	errTemporarilyUnavailable   = "temporarily_unavailable"
	errServer                   = "server_error"
)

// A refusal ends a request. The client is told the code alone: which rule a
// forged request broke is what its author wants to know. The log has both.
type refusal struct {
	code   string // the wire's "error"
	rule   string // section and item: "7.1(4)" of the draft, "RFC 9449 4.3(8)", …
	reason string // for the log; it contains no token, JWT or key
}

func (r *refusal) Error() string { return r.code + " (" + r.rule + "): " + r.reason }

func refuse(code, rule, format string, args ...any) error {
	return &refusal{code: code, rule: rule, reason: fmt.Sprintf(format, args...)}
}

// refuseReplayMemory reports that a replay check could not be made. The request
// is refused: without the check it might be a replay.
func refuseReplayMemory(rule string, err error) error {
	return refuse(errTemporarilyUnavailable, rule, "replay check: %v", err)
}

// status: RFC 6749, section 5.2. The draft's own codes have 400 (section 6.1,
// and for all of them from draft -12).
func (r *refusal) status() int {
	switch r.code {
	case errInvalidClient:
		return http.StatusUnauthorized
	case errTemporarilyUnavailable:
		return http.StatusServiceUnavailable
	case errServer:
		return http.StatusInternalServerError
	default:
		return http.StatusBadRequest
	}
}

// logRefusal logs why a request was not granted and returns it as a refusal.
// use_attestation_challenge and use_dpop_nonce always carry the value that they
// ask for (sections 6.1 and 7.4; RFC 9449, sections 8 and 9).
func (v *verifier) logRefusal(ctx context.Context, w http.ResponseWriter, request string, err error) *refusal {
	refused := new(refusal)
	if !errors.As(err, &refused) {
		v.cfg.Logger.LogAttrs(ctx, slog.LevelError, request+" failed", slog.String("reason", err.Error()))
		return &refusal{code: errServer}
	}
	v.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, request+" refused",
		slog.String("error", refused.code), slog.String("rule", refused.rule), slog.String("reason", refused.reason))
	switch refused.code {
	case errUseAttestationChallenge:
		w.Header().Set(headerChallenge, v.challenges.New())
	case errUseDPoPNonce:
		w.Header().Set(headerDPoPNonce, v.nonces.New())
	case errTemporarilyUnavailable:
		w.Header().Set("Retry-After", "10")
	}
	return refused
}

// writeRefusal answers for the authorization server (RFC 6749, section 5.2).
func (s *Server) writeRefusal(ctx context.Context, w http.ResponseWriter, request string, err error) {
	refused := s.verifier.logRefusal(ctx, w, request, err)
	serve.JSON(w, refused.status(), map[string]string{"error": refused.code})
}
