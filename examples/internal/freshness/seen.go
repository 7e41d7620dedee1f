// SPDX-License-Identifier: Apache-2.0

package freshness

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// Errors of [Seen.Add].
var (
	// ErrSeen: the value has been used before.
	ErrSeen = errors.New("already used")
	// ErrFull: no room is left for another value. The caller must refuse the
	// request: letting it pass would let a flood switch replay detection off.
	ErrFull = errors.New("replay memory is full")
)

// Seen remembers values that may be used once, each for a fixed time at least,
// in a bounded amount of memory: some 60 bytes for each of its capacity, at most.
// A Seen is safe for concurrent use.
//
// It stores digests, so that the length of a value costs nothing. A value is
// forgotten when its time is over and its place is needed, and not before: a clock
// that is set back does not make a used value good again. Since every value is kept
// equally long, the first to go is the one that came first
// (draft-ietf-oauth-attestation-based-client-auth-11, section 10.7, "sliding window").
type Seen struct {
	mu       sync.Mutex
	keep     time.Duration
	capacity int
	now      func() time.Time
	values   map[digest]struct{}
	ring     []seenValue // grows up to the capacity
	oldest   int         // in ring, when that is full
}

// digest is long enough that nobody finds two values with the same one.
type digest [16]byte

type seenValue struct {
	digest digest
	until  int64 // ns
}

// NewSeen returns a Seen that remembers at most capacity values, for keep each by
// now. keep must cover the whole time in which the value would pass the caller's
// other checks.
func NewSeen(keep time.Duration, capacity int, now func() time.Time) *Seen {
	return &Seen{keep: keep, capacity: capacity, now: now, values: make(map[digest]struct{})}
}

// Add remembers a value. It returns [ErrSeen] if the value is remembered
// already, and [ErrFull] if no room is left. Search and insertion are one step:
// of two calls with the same value, one fails.
func (s *Seen) Add(value string) error {
	d := digestOf(value)
	now := s.now()

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[d]; ok {
		return ErrSeen
	}
	added := seenValue{d, now.Add(s.keep).UnixNano()}
	switch {
	case len(s.ring) < s.capacity:
		s.ring = append(s.ring, added)
	case now.UnixNano() < s.ring[s.oldest].until:
		return ErrFull
	default:
		delete(s.values, s.ring[s.oldest].digest)
		s.ring[s.oldest] = added
		s.oldest = (s.oldest + 1) % s.capacity
	}
	s.values[d] = struct{}{}
	return nil
}

// Has reports whether a value is remembered. That it is not says nothing of the
// next moment: only Add uses a value up.
func (s *Seen) Has(value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.values[digestOf(value)]
	return ok
}

func digestOf(value string) digest {
	sum := sha256.Sum256([]byte(value))
	return digest(sum[:16])
}
