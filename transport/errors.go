// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/instancekey/instancekey/keystore"
)

// A Step is a part of an authenticated request that can fail.
type Step string

// The steps. StepAnswer is package client's: a Transport returns each answer as a
// response. StepMetadata is, too, but for a POST to what was an endpoint; see
// [Transport.Update].
const (
	StepMetadata    Step = "get metadata"
	StepAttestation Step = "get attestation"
	StepChallenge   Step = "get challenge"
	StepSign        Step = "sign"
	StepSend        Step = "send"
	StepRetry       Step = "prepare retry"
	StepAnswer      Step = "answer" // it is a refusal, or none of OAuth at all
)

// Error tells where an authenticated request failed, for programs and for
// operators. It holds no credential. What it quotes of a server is short and
// printable.
type Error struct {
	Audience    string // the server's issuer identifier, or the resource's identifier
	Thumbprint  string // RFC 7638 thumbprint of the Client Instance Key
	Step        Step   // what failed
	Send        int    // which send of the request it was for, from 1; 0 if not known
	Status      int    // HTTP status of the server's refusal; 0 without one
	Code        string // OAuth error code of the server's refusal, as Refused has it; "" without one
	Description string // what the server says of it, as Refused has it; "" if nothing
	Hint        string // what is known on this side that may be the cause; "" if nothing
	Err         error  // the cause: of the key, the attestation source, the network, the context
}

// Error names the step and the server, and the server's refusal or else the
// cause.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Step == StepAnswer && e.Status != 0 {
		fmt.Fprintf(&b, "transport: %s refused the request", e.Audience)
	} else {
		fmt.Fprintf(&b, "transport: %s (%s)", e.Step, e.Audience)
	}
	if e.Send > 1 {
		fmt.Fprintf(&b, ", send %d", e.Send)
	}
	refused := e.Status != 0 && (e.Step == StepAnswer || e.Code != "" || e.Err == nil)
	if refused {
		fmt.Fprintf(&b, ": %d", e.Status)
	}
	switch {
	case refused && e.Code != "":
		fmt.Fprintf(&b, " %.100q", e.Code)
	case refused:
		fmt.Fprintf(&b, " %s without an OAuth error code", http.StatusText(e.Status))
	}
	if e.Description != "" {
		fmt.Fprintf(&b, " (%.200q)", e.Description)
	}
	if e.Err != nil && (!refused || e.Step == StepRetry) {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "; %s", e.Hint)
	}
	return b.String()
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
	case e.Status != 0 && e.Step != StepRetry: // there something else failed since
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
	return e.Step == StepSend || e.Step == StepChallenge
}

// Timeout reports whether a deadline has passed, the request's or one in the
// network. With it an Error is a net.Error, and url.Error finds it.
func (e *Error) Timeout() bool {
	var cause net.Error
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.As(e.Err, &cause) && cause.Timeout()
}

func (t *Transport) fail(to *route, a attempt, at Step, err error) error {
	e := &Error{Audience: to.identifier, Thumbprint: t.thumbprint, Step: at, Send: a.number, Err: err}
	if at == StepRetry {
		e.Status, e.Code, e.Description = a.after.status, a.after.code, a.after.description
	}
	return e
}
