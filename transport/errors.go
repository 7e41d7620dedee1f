package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/instancekey/instancekey/keystore"
)

// ErrRedirect is returned for a request that a redirect has made and that
// either comes from an authenticated request or would become one. A server that
// redirects an authenticated request would send credentials and the request's
// body (a refresh token, say) where the metadata does not say; a foreign server
// that redirects to the issuer would have its own request authenticated.
var ErrRedirect = errors.New("transport: redirect from or to an authenticated endpoint refused")

// A step is a part of an authenticated request that can fail.
type step string

const (
	stepAttestation step = "get attestation"
	stepChallenge   step = "get challenge"
	stepSign        step = "sign"
	stepSend        step = "send"
	stepRetry       step = "prepare retry"
)

// Error tells where an authenticated request failed, for programs and for
// operators. It holds no credential and no text of a server but its error code.
type Error struct {
	Audience   string // the server's issuer identifier, or the resource's identifier
	Thumbprint string // RFC 7638 thumbprint of the Client Instance Key
	// Step is what failed: "get attestation", "get challenge", "sign", "send",
	// "prepare retry", or "answer": the server's answer is a refusal, or no
	// answer of OAuth at all. That and "get metadata" are package client's alone: a
	// Transport returns the response.
	Step   string
	Send   int    // which send of the request it was for, from 1; 0 if not known
	Status int    // HTTP status of the server's refusal; 0 without one
	Code   string // OAuth error code of the server's refusal; "" without one
	Err    error  // the cause: of the key, the attestation source, the network, the context
}

// Error names the step and the server, and the server's refusal or else the
// cause.
func (e *Error) Error() string {
	text := fmt.Sprintf("transport: %s (%s)", e.Step, e.Audience)
	if e.Send > 0 {
		text = fmt.Sprintf("transport: %s (send %d to %s)", e.Step, e.Send, e.Audience)
	}
	switch {
	case e.Code != "" && e.Step == string(stepRetry):
		return fmt.Sprintf("%s after %d %.100q: %v", text, e.Status, e.Code, e.Err)
	case e.Code != "":
		return fmt.Sprintf("%s: %d %.100q", text, e.Status, e.Code)
	case e.Status != 0 && (e.Step == "answer" || e.Err == nil):
		return fmt.Sprintf("%s: %d %s without an OAuth error code", text, e.Status, http.StatusText(e.Status))
	default:
		return fmt.Sprintf("%s: %v", text, e.Err)
	}
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same request may succeed later with nothing
// changed on this device: the network, a server or the attester was not there,
// the key's device was busy or locked out, the server said so. A cause with a
// method of this name is asked.
func (e *Error) Temporary() bool {
	switch {
	case e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooEarly || e.Status == http.StatusTooManyRequests || e.Status >= 500:
		return true
	case e.Status != 0 && e.Step != string(stepRetry): // there something else failed since
		return retryable(e.Code) || e.Code == "temporarily_unavailable" || e.Code == "server_error" || e.Code == "slow_down" || e.Code == "authorization_pending"
	case errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, ErrHeaderTooLarge) || errors.Is(e.Err, ErrClosed) || errors.Is(e.Err, ErrRedirect):
		return false
	case errors.Is(e.Err, keystore.ErrUnavailable) || errors.Is(e.Err, keystore.ErrLockedOut) || errors.Is(e.Err, context.DeadlineExceeded):
		return true
	}
	var cause interface{ Temporary() bool }
	if errors.As(e.Err, &cause) && cause.Temporary() {
		return true
	}
	return e.Step == string(stepSend) || e.Step == string(stepChallenge)
}

// Timeout reports whether a deadline has passed, the request's or one in the
// network. With it an Error is a net.Error, and url.Error finds it.
func (e *Error) Timeout() bool {
	var cause net.Error
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.As(e.Err, &cause) && cause.Timeout()
}

func (t *Transport) fail(s *server, a attempt, at step, err error) error {
	e := &Error{Audience: s.audience, Thumbprint: t.thumbprint, Step: string(at), Send: a.number, Err: err}
	if at == stepRetry {
		e.Status, e.Code = a.after.status, a.after.code
	}
	return e
}
