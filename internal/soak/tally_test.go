// SPDX-License-Identifier: Apache-2.0

//go:build soak

package soak_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/transport"
)

type status int

func (s status) Error() string { return fmt.Sprintf("status %d", int(s)) }

// A sample is what could pile up: it counts.
type sample struct{ heap, files, goroutines uint64 } // heap in KiB

func takeSample() sample {
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	open, _ := os.ReadDir("/proc/self/fd") // none elsewhere than on Linux
	return sample{memory.HeapAlloc >> 10, uint64(len(open)), uint64(runtime.NumGoroutine())}
}

// of returns each of them over time, by its name.
func (s *tally) of() map[string][]uint64 {
	all := make(map[string][]uint64)
	for _, now := range s.samples {
		all["heap, KiB"] = append(all["heap, KiB"], now.heap)
		all["descriptors"] = append(all["descriptors"], now.files)
		all["goroutines"] = append(all["goroutines"], now.goroutines)
	}
	return all
}

// A tally is what has happened.
type tally struct {
	mu             sync.Mutex
	calls, good    int
	errs, events   map[string]int
	sends, refused int
	retries        int            // sends of a request after its first
	verdicts       map[string]int // by code and reason, where a request was refused
	began          sample         // what there was at the beginning
	samples        []sample       // over time
}

func newTally() *tally {
	return &tally{errs: make(map[string]int), events: make(map[string]int), verdicts: make(map[string]int), began: takeSample()}
}

func (s *tally) happened(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[event]++
}

func (s *tally) count(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if err == nil {
		s.good++
		return
	}
	s.errs[kind(err)]++
}

// sent is a hook of the transport's.
func (s *tally) sent(_ context.Context, e transport.TraceEvent) {
	if e.Send > 1 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.retries++
	}
}

// kind is what an app would tell errors apart by.
func kind(err error) string {
	var failure *transport.Error
	var answer status
	switch {
	case errors.Is(err, client.ErrClosed), errors.Is(err, transport.ErrClosed):
		return "closed"
	case errors.As(err, &failure):
		if errors.Is(err, context.DeadlineExceeded) {
			return "timeout: " + string(failure.Step)
		}
		if failure.Code != "" || failure.Status != 0 {
			return fmt.Sprintf("%s: %d %s", failure.Step, failure.Status, failure.Code)
		}
		return string(failure.Step)
	case errors.As(err, &answer):
		return answer.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, transport.ErrRedirect):
		return "redirect"
	default:
		return fmt.Sprintf("other: %T", errors.Unwrap(err))
	}
}

const unread = "answered early, the body not read"

// collect takes what the server has seen, and lets it forget that.
func (s *tally) collect(services *clienttest.Services) {
	requests := services.Server.Requests()
	services.Server.Forget()
	services.Resource.Forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range requests {
		if r.Attestation() == "" {
			continue
		}
		s.sends++
		if r.Code == "" {
			continue
		}
		s.refused++
		reason, _, _ := strings.Cut(r.Reason, "\"")
		switch {
		case r.Body == nil: // whatever the reason: the request's parameters were not seen
			s.verdicts[unread]++
			continue
		case strings.Contains(reason, "from now"):
			reason = "iat is far from now"
		}
		s.verdicts[strings.TrimSpace(r.Code+": "+reason)]++
	}
}

func (s *tally) sample() {
	now := takeSample()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, now)
}

func (s *tally) print(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%d calls, %d of them good; %d requests with an attestation, %d refused; %d retries", s.calls, s.good, s.sends, s.refused, s.retries)
	for name, counts := range map[string]map[string]int{"what happened": s.events, "errors": s.errs, "refusals": s.verdicts} {
		for _, what := range slices.Sorted(maps.Keys(counts)) {
			t.Logf("%-14s %7d  %s", name, counts[what], what)
		}
	}
	for name, values := range s.of() {
		plot(t, name, values)
	}
}

// plot prints values over time, from 0 to their largest.
func plot(t *testing.T, name string, values []uint64) {
	if len(values) == 0 {
		return
	}
	var line strings.Builder
	most := max(1, slices.Max(values))
	for _, v := range values {
		line.WriteRune([]rune("▁▂▃▄▅▆▇█")[v*7/most])
	}
	t.Logf("%-12s %s  at most %d, at last %d", name, &line, most, values[len(values)-1])
}

// slack is by how much each may have grown. What is left behind by each call is noticed
// in a minute if it has some hundred bytes: SOAK="-leak 500" fails. Of goroutines
// some more may be under way on a busy machine; checkLeft allows for none at the end.
var slack = map[string]uint64{"heap, KiB": 2 << 10, "descriptors": 16, "goroutines": 32}

// check fails for what must not be, whatever goes wrong.
func (s *tally) check(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good == 0 || s.refused == 0 || len(s.errs) == 0 {
		t.Errorf("%d good calls, %d refusals, %d kinds of errors: it was no soak", s.good, s.refused, len(s.errs))
	}
	for verdict, n := range s.verdicts {
		if !slices.ContainsFunc([]string{
			unread, "use_attestation_challenge: ", "unknown client", "iat is far", "expired", "use_dpop_nonce", "use_fresh_attestation", "challenge is a",
		}, func(known string) bool { return strings.Contains(verdict, known) }) {
			t.Errorf("%d requests were wrong: %s", n, verdict)
		}
	}
	for name, values := range s.of() {
		if n := len(values); n >= 20 {
			// What goes wrong for a moment takes some, so the least counts.
			early, late := slices.Min(values[n/4:n/2]), slices.Min(values[3*n/4:])
			t.Logf("%-12s at least %d in the second quarter, at least %d in the last", name, early, late)
			if late > early+slack[name] {
				t.Errorf("%s pile up: at least %d in the second quarter, at least %d in the last", name, early, late)
			}
		}
	}
}

// checkLeft fails for what is left once all Clients are closed. Servers take a moment to
// notice.
func (s *tally) checkLeft(t *testing.T) {
	var now sample
	for range 100 {
		now = takeSample()
		if now.files <= s.began.files && now.goroutines <= s.began.goroutines {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%+v are left, %+v were there at the beginning\n%s", now, s.began, stacks[:runtime.Stack(stacks, true)])
}
