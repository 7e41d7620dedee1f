// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/transport"
)

// tokenError turns a failure, or a server's refusal, into the error type of this
// module, which tells more of the request and nothing of what a server may have
// sent instead of an OAuth error, a proxy's page for example.
func (c *Client) tokenError(request *tokenRequest, err error) error {
	described := &transport.Error{Audience: c.issuer, Thumbprint: c.thumbprint, Step: transport.StepAnswer, Send: request.sends, Err: err}
	var refusal *oauth2.RetrieveError
	switch {
	case errors.As(err, new(*transport.Error)) || errors.Is(err, ErrClosed):
		return err
	case request.failed != nil:
		described.Step, described.Err = transport.StepSend, request.failed
	case errors.As(err, &refusal) && refusal.Response != nil:
		described.Status = refusal.Response.StatusCode
		described.Code, described.Description = transport.Refused(refusal.Response)
		described.Code = cmp.Or(described.Code, otherCode(refusal))
		described.Hint = c.hint(described.Code, Advice(err))
	}
	return described
}

// otherCode returns the code of an answer that has another status or form than those that
// transport.Refused reads. It is the server's text as well: what is not in the form of a
// code, or repeats what was sent, is none.
func otherCode(refusal *oauth2.RetrieveError) string {
	code := refusal.ErrorCode
	if len(code) > maxCode || !isErrorCode(code) || transport.Repeats(refusal.Response, code) {
		return ""
	}
	return code
}

const maxCode = 100 // bytes of a server's error code

// hint says what this side knows that may be why a server refuses to authenticate the
// client, beside what its refusal is known to mean. Many servers have one code for all
// causes.
func (c *Client) hint(code, advice string) string {
	switch code {
	case "invalid_client", "invalid_client_attestation", "invalid_pop", "invalid_dpop_proof":
	default:
		return advice
	}
	var known []string
	if attestation := c.attestations.describe(); attestation != "" {
		known = append(known, attestation)
	}
	if clock := c.clock.describe(); clock != "" {
		known = append(known, clock)
	}
	if advice != "" {
		known = append(known, advice)
	}
	return strings.Join(known, "; ")
}

// withPrefix says what the error is one of.
func withPrefix(err error) error { return fmt.Errorf("client: token: %w", err) }
