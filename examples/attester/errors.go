// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// Error codes of the protocol, beside those of package evidence. All but
// policy_violation (403) and temporarily_unavailable (503, with Retry-After)
// come with status 400.
const (
	codeInvalidPoP             = "invalid_pop"       // the JWS: typ, signature, aud, times, …
	codeInvalidChallenge       = "invalid_challenge" // unknown, expired or used: fetch another
	codeInvalidSession         = "invalid_session"   // of an enrolment, likewise: start again
	codeTemporarilyUnavailable = "temporarily_unavailable"
)

// refuse ends a request. The code alone is sent: why evidence was not good
// enough is what a forger wants to know.
func refuse(code, format string, args ...any) error {
	return &evidence.Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

func statusOf(code string) int {
	switch code {
	case evidence.CodePolicyViolation:
		return http.StatusForbidden
	case codeTemporarilyUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

// writeError answers, and logs with what is known of who has asked.
func (s *Server) writeError(ctx context.Context, w http.ResponseWriter, asked string, err error, known ...slog.Attr) {
	refused := new(evidence.Error)
	if !errors.As(err, &refused) {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, asked+" failed", append(known, slog.String("reason", err.Error()))...)
		serve.JSON(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, asked+" refused",
		append(known, slog.String("error", refused.Code), slog.String("reason", refused.Reason))...)
	if refused.Code == codeTemporarilyUnavailable {
		w.Header().Set("Retry-After", "10")
	}
	serve.JSON(w, statusOf(refused.Code), map[string]string{"error": refused.Code})
}
