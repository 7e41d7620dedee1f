// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// Trace is a set of functions that are called as a Client works: those of
// [transport.Trace], for requests, and some for what goes on beside them. What is said
// of those holds for all. Package client/report draws a run from them.
type Trace struct {
	transport.Trace

	// Key is called by [New] after the Client Instance Key was opened
	// (Kind "open") or created ("create"), or taken from Config.Key ("given").
	// key is nil if there is an error.
	Key func(ctx context.Context, key keystore.Key, e transport.TraceEvent)

	// Renewal is called after the attester was asked for an attestation.
	Renewal func(ctx context.Context, e transport.TraceEvent)

	// Evidence is called after the key was used on behalf of an [HTTPAttester]. Kind says
	// for what. "enrolment" names the device's attestation key, "activate" answers the
	// attester's challenge for that key, "evidence" proves key and boot, and "request" is
	// the signature over the request. Each is one or several commands of a TPM. It is
	// within the time of Renewal.
	Evidence func(ctx context.Context, e transport.TraceEvent)
}

// The Kinds of Trace.Key and Trace.Evidence.
const (
	keyOpened  = "open"
	keyCreated = "create"
	keyGiven   = "given"

	evidenceEnrolment = "enrolment"
	evidenceActivate  = "activate"
	evidenceCollect   = "evidence"
	evidenceRequest   = "request"
)

func (t *Trace) key(ctx context.Context, key keystore.Key, e transport.TraceEvent) {
	if t != nil && t.Key != nil {
		t.Key(ctx, key, e)
	}
}

func (t *Trace) renewal(ctx context.Context, e transport.TraceEvent) {
	if t != nil && t.Renewal != nil {
		flight.After(ctx, func() { t.Renewal(ctx, e) })
	}
}

func (t *Trace) evidence(ctx context.Context, start time.Time, kind string, err error) {
	if t != nil && t.Evidence != nil {
		e := transport.TraceEvent{Start: start, Duration: time.Since(start), Kind: kind, Err: err}
		flight.After(ctx, func() { t.Evidence(ctx, e) })
	}
}

// requests returns the part that is package transport's.
func (t *Trace) requests() *transport.Trace {
	if t == nil {
		return nil
	}
	return &t.Trace
}
