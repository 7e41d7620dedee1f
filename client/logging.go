// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"log/slog"

	"github.com/instancekey/instancekey/internal/flight"
)

// patient is a log handler that has records wait until the work that they come from
// is done. A handler may take its time, or send its records through the Client, which
// would then wait for the work that waits for the handler.
type patient struct{ slog.Handler }

func newLogger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(patient{log.Handler()})
}

// Handle hands a record on. Its own error is nobody's to see, as with all of package slog.
func (p patient) Handle(ctx context.Context, record slog.Record) error {
	record = record.Clone()
	flight.After(ctx, func() { _ = p.Handler.Handle(ctx, record) })
	return nil
}

// WithAttrs keeps a handler patient.
func (p patient) WithAttrs(attrs []slog.Attr) slog.Handler {
	return patient{p.Handler.WithAttrs(attrs)}
}

// WithGroup keeps a handler patient.
func (p patient) WithGroup(name string) slog.Handler { return patient{p.Handler.WithGroup(name)} }
