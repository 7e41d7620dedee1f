// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

// Trace is a set of functions that are called while a request is authenticated, in the
// manner of net/http/httptrace: for metrics, or for spans. Any of them may be nil. A
// function is called on the request's goroutine. For work that several requests wait for,
// it is called when the work is done, on any goroutine. ctx has the values of the (first)
// request's context, and no values if no request waits. A function may use the Transport
// that calls it. It should not block.
type Trace struct {
	// Challenge is called after the challenge endpoint was asked.
	Challenge func(ctx context.Context, e TraceEvent)
	// Signature is called after a PoP JWT or DPoP proof was signed. Duration is
	// without the time spent waiting for the key's turn, which is Waited.
	Signature func(ctx context.Context, e TraceEvent)
	// Unused is called after a proof that was signed ahead was thrown away, because it
	// is too old or there is a newer challenge, for example, which Err tells. Start is
	// when its signature was begun.
	Unused func(ctx context.Context, e TraceEvent)
	// Request is called after each send of an authenticated request, when the
	// header of its response has come.
	Request func(ctx context.Context, e TraceEvent)
}

// TraceEvent is one thing that took time.
type TraceEvent struct {
	Start    time.Time // by the process's clock, monotonic
	Duration time.Duration
	Waited   time.Duration // before Start, for the key's turn; 0 for all but signatures
	Kind     string        // what of several things it was: of a signature or a proof, the JWT's typ; "" where there is one thing only
	Ahead    bool          // of a signature: nobody waited for it when it was begun
	Audience string        // issuer or resource identifier; "" for signatures
	Send     int           // which send of the request, from 1; 0 where that has no meaning
	Status   int           // HTTP status of the response; 0 without one
	Code     string        // OAuth error code of a refusal, as Refused has it, asked to send again or not
	Err      error
}

func (t *Trace) signature(ctx context.Context, e TraceEvent) {
	if t != nil && t.Signature != nil {
		flight.After(ctx, func() { t.Signature(ctx, e) })
	}
}

// unused has the hook called by call.
func (t *Trace) unused(ctx context.Context, e TraceEvent, call func(func())) {
	if t != nil && t.Unused != nil {
		call(func() { t.Unused(ctx, e) })
	}
}

func (t *Trace) challenge(ctx context.Context, start time.Time, audience string, err error) {
	if t != nil && t.Challenge != nil {
		e := TraceEvent{Start: start, Duration: time.Since(start), Audience: audience, Err: err}
		flight.After(ctx, func() { t.Challenge(ctx, e) })
	}
}

func (t *Trace) request(ctx context.Context, e TraceEvent) {
	if t != nil && t.Request != nil {
		flight.After(ctx, func() { t.Request(ctx, e) })
	}
}
