package client

import (
	"context"

	"github.com/instancekey/instancekey/transport"
)

// Trace is a set of functions that are called as a Client works: those of
// [transport.Trace], for requests, and one for what goes on beside them. What is said
// of those holds for all.
type Trace struct {
	transport.Trace

	// Renewal is called after the attester was asked for an attestation.
	Renewal func(ctx context.Context, e transport.TraceEvent)
}

func (t *Trace) renewal(ctx context.Context, e transport.TraceEvent) {
	if t != nil && t.Renewal != nil {
		t.Renewal(ctx, e)
	}
}

// requests returns the part that is package transport's.
func (t *Trace) requests() *transport.Trace {
	if t == nil {
		return nil
	}
	return &t.Trace
}
