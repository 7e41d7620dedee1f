// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestIatIsOfTheSignature: who has waited for the key makes claims then, not
// before.
func TestIatIsOfTheSignature(t *testing.T) {
	f := newFixture(t, policy{})
	synctest.Test(t, func(t *testing.T) {
		key := newStuckKey(f.key)
		f.inProcess(func(c *transport.Config) { c.Key = key })
		first := f.start(t.Context())
		synctest.Wait()
		second := f.start(t.Context())
		synctest.Wait()
		if n := len(key.entered); n != 1 {
			t.Errorf("%d signatures at once, want 1", n)
		}
		f.clock.advance(10 * time.Second)
		now := f.clock.Now().Unix()
		close(key.let)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		issued := make(map[int64]bool)
		for _, r := range f.server.Requests(transporttest.Token) {
			issued[r.PoP.IssuedAt] = true
		}
		if !issued[now] || !issued[now-10] {
			t.Errorf("iat %v, want %d and %d", issued, now-10, now)
		}
	})
}

// slowKey takes a second for each signature, and keeps how many there were at once.
type slowKey struct {
	keystore.Key
	now, most, signed atomic.Int64
}

func (k *slowKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	k.signed.Add(1)
	now := k.now.Add(1)
	for most := k.most.Load(); now > most && !k.most.CompareAndSwap(most, now); most = k.most.Load() {
	}
	<-time.After(time.Second)
	k.now.Add(-1)
	return k.Key.Sign(ctx, input)
}

// TestOneKeyForBothProofs: a key that makes PoP JWTs and DPoP proofs signs one at a time,
// and two keys do not wait for each other.
func TestOneKeyForBothProofs(t *testing.T) {
	for name, same := range map[string]bool{"one key": true, "two keys": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{})
			synctest.Test(t, func(t *testing.T) {
				key := &slowKey{Key: f.key}
				f.inProcess(withDPoP, func(c *transport.Config) {
					if c.Key = key; same {
						c.DPoPKey = key
					}
				})
				begin := time.Now()
				f.fourAtOnce(t)
				signatures := int64(4)
				if same {
					signatures = 8
				}
				if n, most := key.signed.Load(), key.most.Load(); n != signatures || most != 1 {
					t.Errorf("%d signatures, up to %d at once, want %d and 1", n, most, signatures)
				}
				if took := time.Since(begin); took != time.Duration(signatures)*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// fourAtOnce makes four requests that do not wait for each other.
func (f *fixture) fourAtOnce(t *testing.T) {
	t.Helper()
	var ends []<-chan error
	for range 4 {
		ends = append(ends, f.start(t.Context()))
	}
	for _, end := range ends {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
}

// promptKey is a slowKey that says whether its signature waits for nothing.
type promptKey struct {
	*slowKey
	is bool
}

func (k promptKey) IsPrompt() bool { return k.is }

// TestPromptKey: with a key that waits for nothing all requests sign at once, and with one
// that says that it does not each has its turn.
func TestPromptKey(t *testing.T) {
	for is, most := range map[bool]int64{true: 4, false: 1} {
		t.Run(fmt.Sprint(is), func(t *testing.T) {
			f := newFixture(t, policy{})
			synctest.Test(t, func(t *testing.T) {
				key := promptKey{&slowKey{Key: f.key}, is}
				f.inProcess(withDPoP, func(c *transport.Config) { c.Key, c.DPoPKey = key, key })
				f.fourAtOnce(t)
				if n, at := key.signed.Load(), key.most.Load(); n != 8 || at != most {
					t.Errorf("%d signatures, up to %d at once, want 8 and %d", n, at, most)
				}
				if n := f.server.Refused(); n != 0 {
					t.Errorf("%d refused", n)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := <-f.start(ctx); !errors.Is(err, context.Canceled) || key.signed.Load() != 8 {
					t.Errorf("%v after %d signatures, of a request that had ended", err, key.signed.Load())
				}
			})
		})
	}
}
