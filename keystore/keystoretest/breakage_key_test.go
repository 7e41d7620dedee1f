// SPDX-License-Identifier: Apache-2.0

package keystoretest_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"strings"
	"sync/atomic"

	"github.com/instancekey/instancekey/keystore"
)

// withKeys is a Store whose keys are replaced.
func withKeys(replace func(keystore.Key) keystore.Key) func(keystore.Store, int) keystore.Store {
	return func(s keystore.Store, _ int) keystore.Store {
		wrap := func(key keystore.Key, err error) (keystore.Key, error) {
			if err != nil {
				return nil, err
			}
			return replace(key), nil
		}
		return broken{Store: s,
			create: func(ctx context.Context, name string) (keystore.Key, error) { return wrap(s.Create(ctx, name)) },
			open:   func(ctx context.Context, name string) (keystore.Key, error) { return wrap(s.Open(ctx, name)) },
		}
	}
}

// withSign is a Store whose keys sign in another way.
func withSign(sign func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error)) func(keystore.Store, int) keystore.Store {
	return withKeys(func(key keystore.Key) keystore.Key { return brokenKey{Key: key, sign: sign} })
}

// brokenKey is a Key, some of whose methods are replaced.
type brokenKey struct {
	keystore.Key
	algorithm string
	public    func() crypto.PublicKey
	sign      func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error)
}

func (k brokenKey) Algorithm() string {
	if k.algorithm != "" {
		return k.algorithm
	}
	return k.Key.Algorithm()
}

func (k brokenKey) Public() crypto.PublicKey {
	if k.public != nil {
		return k.public()
	}
	return k.Key.Public()
}

func (k brokenKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if k.sign != nil {
		return k.sign(ctx, k.Key, input)
	}
	return k.Key.Sign(ctx, input)
}

// signedAtOnce reports whether input is one of the check SignAtOnce.
func signedAtOnce(input []byte) bool {
	return strings.Contains(string(input), "."+b64([]byte("caller")))
}

var keyBreakages = []breakage{
	{"Algorithm is another one", "Key/Algorithm", withKeys(func(key keystore.Key) keystore.Key {
		return brokenKey{Key: key, algorithm: "ES384"}
	})},
	{"Public changes", "Key/Algorithm", withKeys(func(key keystore.Key) keystore.Key {
		return brokenKey{Key: key, public: func() crypto.PublicKey { return anotherKey().Public() }}
	})},
	{"Public is a value", "Key/Algorithm", withKeys(func(key keystore.Key) keystore.Key {
		return brokenKey{Key: key, public: func() crypto.PublicKey { return *key.Public().(*ecdsa.PublicKey) }}
	})},
	{"Sign returns DER", "Key/Sign", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		jose, err := key.Sign(ctx, input)
		if err != nil {
			return nil, err
		}
		return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(jose[:32]), new(big.Int).SetBytes(jose[32:])})
	})},
	{"Sign does not pad", "Key/SignAtOnce", func() func(keystore.Store, int) keystore.Store {
		var calls atomic.Int64
		return withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
			signature, err := key.Sign(ctx, input)
			// Chance would do it in one of 128; here it is one of 16, and
			// what was cut is no zero, which makes no difference.
			if err == nil && calls.Add(1)%16 == 0 {
				signature = signature[1:]
			}
			return signature, err
		})
	}()},
	{"Sign hashes twice", "Key/Sign", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		digest := sha256.Sum256(input)
		return key.Sign(ctx, digest[:])
	})},
	{"Sign signs a part of a long input", "Key/Sign", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		return key.Sign(ctx, input[:min(len(input), 1024)])
	})},
	{"Sign ignores its context", "Key/SignCancelled", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		return key.Sign(context.WithoutCancel(ctx), input)
	})},
	{"Sign hides why it ended", "Key/SignCancelled", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		signature, err := key.Sign(ctx, input)
		if err != nil {
			err = keystore.ErrUnavailable
		}
		return signature, err
	})},
	{"Sign takes a deadline for a cancellation", "Key/SignCancelled", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		signature, err := key.Sign(ctx, input)
		if err != nil {
			err = context.Canceled
		}
		return signature, err
	})},
	{"Sign fails once cancelled", "Key/SignCancelled", withKeys(func(key keystore.Key) keystore.Key {
		var stuck atomic.Bool
		return brokenKey{Key: key, sign: func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
			if stuck.Load() {
				return nil, keystore.ErrUnavailable
			}
			signature, err := key.Sign(ctx, input)
			stuck.Store(err != nil)
			return signature, err
		}}
	})},
	{"Sign changes its input", "Key/SignKeepsInput", withSign(func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
		defer clear(input)
		return key.Sign(ctx, input)
	})},
	{"Sign reuses its output", "Key/SignKeepsInput", withKeys(func(key keystore.Key) keystore.Key {
		output := make([]byte, 64)
		return brokenKey{Key: key, sign: func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
			signature, err := key.Sign(ctx, input)
			if signedAtOnce(input) { // the race detector would end the test
				return signature, err
			}
			copy(output, signature)
			return output, err
		}}
	})},
	{"Sign is busy when called twice at once", "Key/SignAtOnce", withKeys(func(key keystore.Key) keystore.Key {
		var callers atomic.Int64
		second := make(chan struct{})
		return brokenKey{Key: key, sign: func(ctx context.Context, key keystore.Key, input []byte) ([]byte, error) {
			if !signedAtOnce(input) || ctx.Err() != nil {
				return key.Sign(ctx, input)
			}
			switch callers.Add(1) {
			case 1:
				<-second
			case 2:
				close(second)
				return nil, keystore.ErrUnavailable
			}
			return key.Sign(ctx, input)
		}}
	})},
	{"a key shows its private half", "Key/ShowsNoSecret", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return nil, err
			}
			key, err := keystore.FromSigner(private)
			return struct {
				keystore.Key
				Private ecdsa.PrivateKey
			}{key, *private}, err
		}}
	}},
}
