// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// A running is a device between two of its steps: it stands still where it would
// wait.
type running struct {
	t      *testing.T
	pauses chan pause
	status chan int
	stop   context.CancelFunc
	log    lockedBuilder
	held   *pause
}

type pause struct {
	length time.Duration
	goOn   chan struct{}
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) start(args ...string) *running {
	ctx, stop := context.WithCancel(w.t.Context())
	r := &running{t: w.t, pauses: make(chan pause), status: make(chan int, 1), stop: stop}
	w.t.Cleanup(stop)
	go func() {
		r.status <- run(ctx, args, &r.log, func(ctx context.Context, d time.Duration) error {
			p := pause{d, make(chan struct{})}
			select {
			case r.pauses <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case <-p.goOn:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return r
}

// step lets the device go on until it waits again, which must be for between
// these times.
func (r *running) step(least, most time.Duration) {
	r.t.Helper()
	if r.held != nil {
		close(r.held.goOn)
		r.held = nil
	}
	select {
	case p := <-r.pauses:
		r.held = &p
		if p.length < least || p.length > most {
			r.t.Fatalf("waits %v, want %v to %v; it says:\n%s", p.length, least, most, &r.log)
		}
	case status := <-r.status:
		r.t.Fatalf("ended with status %d; it says:\n%s", status, &r.log)
	}
}

// calls lets the device go on to its next good call.
func (r *running) calls() {
	r.t.Helper()
	r.step(54*time.Minute, 66*time.Minute)
}

// fails lets it go on to a failure, the nth in a row.
func (r *running) fails(n int) {
	r.t.Helper()
	most := time.Second << (n - 1)
	r.step(most/2, most)
}

// ends waits for the end, which must have this status.
func (r *running) ends(status int) {
	r.t.Helper()
	if r.held != nil {
		close(r.held.goOn)
		r.held = nil
	}
	select {
	case p := <-r.pauses:
		r.t.Fatalf("waits %v, want it to end; it says:\n%s", p.length, &r.log)
	case got := <-r.status:
		if got != status {
			r.t.Fatalf("ended with status %d, want %d; it says:\n%s", got, status, &r.log)
		}
	}
}

// terminates is SIGTERM while it waits.
func (r *running) terminates() {
	r.t.Helper()
	r.held = nil
	r.stop()
	r.ends(statusOK)
}
