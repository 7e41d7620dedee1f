// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
)

// A reporter is to the server what a test is: it hears of faults, and it ends.
type reporter struct {
	testing.TB // nil: what is not below is not called
	to         io.Writer

	mu     sync.Mutex
	faults int
	ends   []func()
}

func (r *reporter) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults++
	fmt.Fprintf(r.to, format+"\n", args...)
}

func (r *reporter) Fatal(args ...any) {
	fmt.Fprintln(r.to, args...)
	os.Exit(1)
}

func (r *reporter) Cleanup(end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, end)
}

func (r *reporter) cleanup() {
	for i := len(r.ends) - 1; i >= 0; i-- {
		r.ends[i]()
	}
}

func (r *reporter) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults
}
