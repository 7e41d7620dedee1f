package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Error codes of RFC 6749 (section 5.2), RFC 9449, and the draft (section 7.4).
const (
	errInvalidRequest           = "invalid_request"
	errInvalidClient            = "invalid_client"
	errInvalidGrant             = "invalid_grant"
	errInvalidScope             = "invalid_scope"
	errUnsupportedGrantType     = "unsupported_grant_type"
	errInvalidDPoPProof         = "invalid_dpop_proof"
	errUseDPoPNonce             = "use_dpop_nonce"
	errUseAttestationChallenge  = "use_attestation_challenge"
	errUseFreshAttestation      = "use_fresh_attestation"
	errInvalidClientAttestation = "invalid_client_attestation"
	errTemporarilyUnavailable   = "temporarily_unavailable"
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
	default:
		return http.StatusBadRequest
	}
}

// writeRefusal answers and logs. use_attestation_challenge and use_dpop_nonce
// always carry the value that they ask for (sections 6.1 and 7.4; RFC 9449,
// section 8).
func (s *Server) writeRefusal(ctx context.Context, w http.ResponseWriter, err error) {
	refused := new(refusal)
	if !errors.As(err, &refused) {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "token request failed", slog.String("reason", err.Error()))
		serve.JSON(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "token request refused",
		slog.String("error", refused.code), slog.String("rule", refused.rule), slog.String("reason", refused.reason))
	switch refused.code {
	case errUseAttestationChallenge:
		w.Header().Set(headerChallenge, s.challenges.New())
	case errUseDPoPNonce:
		w.Header().Set(headerDPoPNonce, s.nonces.New())
	case errTemporarilyUnavailable:
		w.Header().Set("Retry-After", "10")
	}
	serve.JSON(w, refused.status(), map[string]string{"error": refused.code})
}
