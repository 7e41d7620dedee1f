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

// Seen remembers values that may be used once, each for a fixed time, in a
// bounded amount of memory. A Seen is safe for concurrent use.
//
// It stores digests, so that the length of a value costs nothing. Since every
// value is kept equally long, they expire in the order in which they came, and
// a queue is enough to find them (draft-ietf-oauth-attestation-based-client-auth-11,
// section 10.7, "sliding window").
type Seen struct {
	mu       sync.Mutex
	keep     time.Duration
	capacity int
	now      func() time.Time
	values   map[[sha256.Size]byte]struct{}
	queue    []seenValue // oldest first
}

type seenValue struct {
	digest [sha256.Size]byte
	until  time.Time
}

// NewSeen returns a Seen that remembers at most capacity values for keep each.
// keep must cover the whole time in which the value would pass the caller's
// other checks.
func NewSeen(keep time.Duration, capacity int, now func() time.Time) *Seen {
	return &Seen{keep: keep, capacity: capacity, now: now, values: make(map[[sha256.Size]byte]struct{})}
}

// Add remembers a value. It returns [ErrSeen] if the value is remembered
// already, and [ErrFull] if no room is left. Search and insertion are one step:
// of two calls with the same value, one fails.
func (s *Seen) Add(value string) error {
	digest := sha256.Sum256([]byte(value))
	now := s.now()

	s.mu.Lock()
	defer s.mu.Unlock()
	expired := 0
	for expired < len(s.queue) && !now.Before(s.queue[expired].until) {
		delete(s.values, s.queue[expired].digest)
		expired++
	}
	s.queue = s.queue[expired:]

	if _, ok := s.values[digest]; ok {
		return ErrSeen
	}
	if len(s.queue) >= s.capacity {
		return ErrFull
	}
	s.values[digest] = struct{}{}
	s.queue = append(s.queue, seenValue{digest, now.Add(s.keep)})
	return nil
}
