// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// brokenKey does something else than signing, once.
type brokenKey struct {
	keystore.Key
	instead func() error
	called  atomic.Int32
}

func (k *brokenKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if k.called.Add(1) == 1 {
		return nil, k.instead()
	}
	return k.Key.Sign(ctx, input)
}

// TestPrepareOfABrokenKey: a key that panics, or that gives up for reasons of its own, is
// asked once, and holds up no request that comes later.
func TestPrepareOfABrokenKey(t *testing.T) {
	for name, instead := range map[string]func() error{
		"panics":        func() error { panic("broken") },
		"was cancelled": func() error { return context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			var key *brokenKey
			signingAhead(t, policy{}, func(r *aheadRig) {
				func() {
					defer func() {
						if recovered := recover(); (recovered != nil) != (name == "panics") {
							r.t.Errorf("recovered %v", recovered)
						}
					}()
					if err := r.Prepare(r.request(r.t.Context())); !errors.Is(err, context.Canceled) {
						r.t.Errorf("Prepare: %v", err)
					}
				}()
				if n := key.called.Load(); n != 1 {
					r.t.Errorf("the key was called %d times", n)
				}
				if took := r.takes(); took != chipTime {
					r.t.Errorf("the next request took %v", took)
				}
			}, func(r *aheadRig, c *transport.Config) {
				key = &brokenKey{Key: r.key, instead: instead}
				c.Key = key
			})
		})
	}
}

// TestPrepareOfABoundMessage: what is signed ahead cannot carry the message.
func TestPrepareOfABoundMessage(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		ctx := transport.BindMessage(r.t.Context(), []byte("message"))
		if err := r.Prepare(r.request(ctx)); !errors.Is(err, transport.ErrSignAhead) {
			r.t.Errorf("Prepare: %v", err)
		}
		r.wants(0, 0)
		r.takes(func(req *http.Request) *http.Request { return req.WithContext(ctx) })
	})
}
