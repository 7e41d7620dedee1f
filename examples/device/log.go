// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"regexp"
	"sync"
	"time"
)

// repeatAfter is how long the same trouble is not told again.
const repeatAfter = 24 * time.Hour

// newLogger returns a logger for a program that runs for years: a line for what changes,
// and none for what goes on. The levels are: error, somebody has to do something; warn,
// something is wrong and is tried again; info, something has changed for the better, or
// begun; debug, each call and each try.
func newLogger(to io.Writer, level slog.Level) (*slog.Logger, *once) {
	told := &once{
		// The service manager adds the time.
		Handler: slog.NewTextHandler(to, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}),
		said: make(map[string]time.Time),
	}
	return slog.New(told), told
}

// once passes on a warning that was not there yet, or not in the last day; a repetition
// is worth the level debug.
type once struct {
	slog.Handler

	mu   sync.Mutex
	said map[string]time.Time
}

// Handle implements slog.Handler.
func (o *once) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn && !o.isNew(r) {
		if !o.Handler.Enabled(ctx, slog.LevelDebug) {
			return nil
		}
		r.Level = slog.LevelDebug
	}
	return o.Handler.Handle(ctx, r)
}

// numbers differ from one try to the next: ports, times, what an error counts, and what
// servers name their answers by.
var numbers = regexp.MustCompile(`[0-9]+[0-9a-f]*|[0-9a-f]{8,}`)

const mostSaid = 100 // kinds of trouble that are remembered

// isNew notes what a record says, without its numbers.
func (o *once) isNew(r slog.Record) bool {
	says := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" || a.Key == "cause" {
			says += "\n" + a.Value.String()
		}
		return true
	})
	says = numbers.ReplaceAllString(says, "")
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, found := o.said[says]; found && time.Since(last) < repeatAfter {
		return false
	}
	if len(o.said) >= mostSaid {
		clear(o.said)
	}
	o.said[says] = time.Now()
	return true
}

// forget has everything told anew: what was wrong has passed.
func (o *once) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.said)
}

// WithAttrs and WithGroup are for handlers below loggers of their own, which this
// program has none of.
func (o *once) WithAttrs([]slog.Attr) slog.Handler { return o }

// WithGroup is as WithAttrs.
func (o *once) WithGroup(string) slog.Handler { return o }

// cure says what somebody can do about an error whose text does not, "" if that is
// nothing.
func cure(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "install the authority's certificate, or name it with -ca, and restart this program: it reads the roots once"
	case errors.Is(err, fs.ErrPermission):
		return adviceOwner
	}
	return ""
}
