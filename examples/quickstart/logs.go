// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log/slog"
)

// attesterLog is the Client Attester's logger: it logs what it has verified.
func (o *observer) attesterLog() *slog.Logger {
	return watchLog(o.stderr, map[string]func(record map[string]string){
		"attestation key enrolled": func(map[string]string) {}, // step b has it
		"client attestation issued": func(record map[string]string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			seen := step{Step: "c", Log: record}
			if o.proof.KeyName != "" {
				seen.Title = titleVerify
			}
			o.story.step(seen)
			o.verdicts.attester(record)
		},
	}, o.verdicts.attester)
}

// authServerLog is the authorization server's logger. What it logs belongs to
// step 5, which is told when the client has the answer.
func (o *observer) authServerLog() *slog.Logger {
	return watchLog(o.stderr, map[string]func(record map[string]string){
		"token issued": func(record map[string]string) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.verified = record
			o.verdicts.server(record)
		},
	}, o.verdicts.server)
}

// watchLog returns a logger that hands over the records with these messages. All
// others are about something that went wrong, and go to stderr and to wrong.
func watchLog(stderr io.Writer, found map[string]func(record map[string]string), wrong func(record map[string]string)) *slog.Logger {
	return slog.New(&logWatch{slog.NewTextHandler(stderr, nil), found, wrong})
}

type logWatch struct {
	slog.Handler
	found map[string]func(map[string]string)
	wrong func(map[string]string)
}

// Handle implements slog.Handler.
func (w *logWatch) Handle(ctx context.Context, r slog.Record) error {
	record := map[string]string{"message": r.Message}
	r.Attrs(func(a slog.Attr) bool {
		record[a.Key] = a.Value.String()
		return true
	})
	if found, ok := w.found[r.Message]; ok {
		found(record)
		return nil
	}
	w.wrong(record)
	return w.Handler.Handle(ctx, r)
}
