// SPDX-License-Identifier: Apache-2.0

// Package examplet has what stands for a *testing.T in the Examples of test kits: an
// Example has none of its own.
package examplet

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// T prints what a *testing.T would log, which an Example's output then shows.
type T struct {
	testing.TB // nil: what T does not have itself panics
	cleanups   []func()
}

// New returns a T, whose End has to be called.
func New() *T { return new(T) }

// Helper does nothing.
func (t *T) Helper() {}

// Context returns one that does not end.
func (t *T) Context() context.Context { return context.Background() }

// Cleanup has End call f.
func (t *T) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Logf prints a line.
func (t *T) Logf(format string, args ...any) {
	fmt.Println(strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Errorf prints a line that the output of no Example has.
func (t *T) Errorf(format string, args ...any) { t.Logf("error: "+format, args...) }

// Fatal ends the process, since an Example cannot end alone.
func (t *T) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

// End calls what was given to Cleanup, the last one first.
func (t *T) End() {
	for i := range t.cleanups {
		t.cleanups[len(t.cleanups)-1-i]()
	}
}
