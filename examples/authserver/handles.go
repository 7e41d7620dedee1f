// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

var (
	errHandleUnknown = errors.New("unknown, or used already")
	errHandleExpired = errors.New("has expired")
)

// handles are random strings that stand for something kept here: refresh
// tokens, authorization codes, request URIs. They are kept by digest: who reads
// this memory learns none.
type handles[T any] struct {
	lifetime time.Duration
	capacity int // beyond it the oldest goes
	now      func() time.Time

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]handle[T]
	queue  [][sha256.Size]byte // oldest first; those already taken included
}

type handle[T any] struct {
	value   T
	expires time.Time
}

func newHandles[T any](lifetime time.Duration, capacity int, now func() time.Time) handles[T] {
	return handles[T]{lifetime: lifetime, capacity: capacity, now: now, tokens: make(map[[sha256.Size]byte]handle[T])}
}

// add makes a handle for a value.
func (h *handles[T]) add(value T) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) >= h.capacity {
		delete(h.tokens, h.queue[0])
		h.queue = h.queue[1:]
	}
	token := rand.Text()
	digest := sha256.Sum256([]byte(token))
	h.tokens[digest] = handle[T]{value, h.now().Add(h.lifetime)}
	h.queue = append(h.queue, digest)
	return token
}

// get returns what a handle stands for. It changes nothing: a handle shown by
// somebody else stays good for its holder.
func (h *handles[T]) get(token string) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.getLocked(token)
}

// take is get for the last time: of two calls with the same handle, one fails.
func (h *handles[T]) take(token string) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, err := h.getLocked(token)
	if err == nil {
		delete(h.tokens, sha256.Sum256([]byte(token)))
	}
	return value, err
}

func (h *handles[T]) getLocked(token string) (value T, err error) {
	found, ok := h.tokens[sha256.Sum256([]byte(token))]
	switch {
	case !ok:
		return value, errHandleUnknown
	case !h.now().Before(found.expires):
		return value, errHandleExpired
	}
	return found.value, nil
}
