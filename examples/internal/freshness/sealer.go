// SPDX-License-Identifier: Apache-2.0

package freshness

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Sealer hands a server's state to whom it concerns, to be brought back within
// a limited time: encrypted and authenticated, so that he can neither read nor
// change it. The server itself keeps nothing, however many ask. A Sealer is safe
// for concurrent use.
//
// The key is made by [NewSealer] and lives as long as the process; several servers
// behind one name would have to share it.
type Sealer struct {
	aead     cipher.AEAD
	lifetime time.Duration
	now      func() time.Time
}

// NewSealer returns a Sealer with a key of its own. What it seals can be opened
// for lifetime by now, which should be [Monotone].
func NewSealer(lifetime time.Duration, now func() time.Time) *Sealer {
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key) // never fails (crypto/rand)
	// Nonces of this size can be random, however many are sealed.
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // a key of another size
	}
	return &Sealer{aead: aead, lifetime: lifetime, now: now}
}

// Seal returns text that only [Sealer.Open] can read: base64url.
func (s *Sealer) Seal(state []byte) string {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+8+len(state)+chacha20poly1305.Overhead)
	rand.Read(nonce)
	plain := make([]byte, 8, 8+len(state))
	binary.BigEndian.PutUint64(plain, uint64(s.now().Add(s.lifetime).UnixNano()))
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, append(plain, state...), nil))
}

// Open returns the state that was sealed; [ErrUnknown] for what this Sealer has
// not sealed, and [ErrExpired] after its lifetime.
func (s *Sealer) Open(sealed string) ([]byte, error) {
	raw, err := decodeCanonical(sealed)
	if err != nil || len(raw) < chacha20poly1305.NonceSizeX {
		return nil, ErrUnknown
	}
	plain, err := s.aead.Open(nil, raw[:chacha20poly1305.NonceSizeX], raw[chacha20poly1305.NonceSizeX:], nil)
	if err != nil || len(plain) < 8 {
		return nil, ErrUnknown
	}
	if expiry := int64(binary.BigEndian.Uint64(plain)); s.now().UnixNano() >= expiry {
		return nil, ErrExpired
	}
	return plain[8:], nil
}

// decodeCanonical decodes base64url. That has several texts for the same bytes
// (line breaks, unused bits); all but one are refused, or what may be used once
// could be used again under another text.
func decodeCanonical(text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(raw) != text {
		return nil, ErrUnknown
	}
	return raw, nil
}
