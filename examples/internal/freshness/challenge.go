// SPDX-License-Identifier: Apache-2.0

// Package freshness is what the reference servers need against replay:
// challenges that carry their own expiry, state that its owner carries, a bounded
// memory of values that may be used once, and a clock that never goes back.
package freshness

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// Errors of [Challenges.Check] and [Sealer.Open].
var (
	// ErrUnknown: the value was not made here, or not by this process.
	ErrUnknown = errors.New("not a challenge of this server")
	// ErrExpired: it was, and its lifetime has passed.
	ErrExpired = errors.New("challenge has expired")
)

// Challenges makes and checks self-contained challenges: nothing is stored for
// a challenge that is handed out, so handing out a million costs no memory.
// A Challenges is safe for concurrent use.
//
// A challenge is 32 bytes in base64url: 8 random, 8 with the expiry, and 16 of
// an HMAC-SHA256 over both. The key is made by [NewChallenges] and lives as long
// as the process; several servers behind one name would have to share it.
type Challenges struct {
	key      [32]byte
	lifetime time.Duration
	now      func() time.Time
}

const (
	bodySize = 16 // random and expiry
	macSize  = 16
)

// NewChallenges returns Challenges with a key of their own, so that what one of
// a server's uses hands out is never taken for another's. They live for lifetime
// by now, which should be [Monotone].
func NewChallenges(lifetime time.Duration, now func() time.Time) *Challenges {
	c := &Challenges{lifetime: lifetime, now: now}
	rand.Read(c.key[:]) // never fails (crypto/rand)
	return c
}

// Lifetime returns how long a new challenge is valid.
func (c *Challenges) Lifetime() time.Duration { return c.lifetime }

// New returns a new challenge: 43 characters of base64url.
func (c *Challenges) New() string {
	raw := make([]byte, bodySize, bodySize+macSize)
	rand.Read(raw[:8])
	binary.BigEndian.PutUint64(raw[8:], uint64(c.now().Add(c.lifetime).UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(raw, c.mac(raw)...))
}

// Check returns nil for a challenge that New made and that has not expired,
// and otherwise [ErrUnknown] or [ErrExpired]. Whether a challenge may be used
// again is not its business: see [Seen].
func (c *Challenges) Check(challenge string) error {
	raw, err := decodeCanonical(challenge)
	if err != nil || len(raw) != bodySize+macSize {
		return ErrUnknown
	}
	if !hmac.Equal(raw[bodySize:], c.mac(raw[:bodySize])) {
		return ErrUnknown
	}
	if expiry := int64(binary.BigEndian.Uint64(raw[8:])); c.now().UnixNano() >= expiry {
		return ErrExpired
	}
	return nil
}

func (c *Challenges) mac(body []byte) []byte {
	h := hmac.New(sha256.New, c.key[:])
	h.Write(body)
	return h.Sum(nil)[:macSize]
}
