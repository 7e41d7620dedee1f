// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// screen is what was written to a terminal, by several goroutines.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestProgress: what takes less than a second shows nothing, what takes longer shows once a
// second for how long, and nothing of it is left or in the way.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(screen)
		p := &progress{to: s}
		done := p.step("opening the TPM")
		time.Sleep(900 * time.Millisecond)
		done()
		done()
		if s.String() != "" {
			t.Errorf("it showed %q", s)
		}
		done = p.step("making the key")
		time.Sleep(2500 * time.Millisecond)
		fmt.Fprint(p.beside(s), "a line\n")
		time.Sleep(time.Second)
		done()
		want := clearLine + "making the key … 1 s" + clearLine + "making the key … 2 s" + clearLine + "a line\n" + clearLine + "making the key … 3 s" + clearLine
		if s.String() != want {
			t.Errorf("it showed %q\nwant      %q", s, want)
		}
	})
}

// TestNoProgress: what is no terminal gets nothing.
func TestNoProgress(t *testing.T) {
	var p *progress
	var s strings.Builder
	p.step("x")()
	if newProgress(&s) != nil || p.beside(&s) != &s {
		t.Error("a builder was taken for a terminal")
	}
}
