// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestUnusedMayUseItsClient: a hook that is told of a proof that was signed in vain may get
// a token, with a context of its own and without an end, whatever the Client was doing.
func TestUnusedMayUseItsClient(t *testing.T) {
	for why, spoil := range map[string]func(r *rig, offset *atomic.Int64, c *client.Client){
		"servers and resources were replaced": func(r *rig, offset *atomic.Int64, _ *client.Client) {
			r.edit(transporttest.Metadata, func(m map[string]any) { m["introspection_endpoint"] = r.URL + "/introspection" })
			r.Set(func(p *transporttest.Policy) { // it comes when the next proof is signed
				p.Before = func(request transporttest.Request) {
					if request.Endpoint == transporttest.Metadata {
						time.Sleep(time.Second)
					}
				}
			})
			offset.Store(int64(48 * time.Hour))
		},
		"the clock was set or corrected": func(_ *rig, offset *atomic.Int64, _ *client.Client) { offset.Store(int64(time.Minute)) },
		"it is too old":                  func(*rig, *atomic.Int64, *client.Client) { time.Sleep(time.Minute) },
		"there is another attestation": func(_ *rig, _ *atomic.Int64, c *client.Client) {
			if err := c.Renew(context.Background()); err != nil {
				panic(err)
			}
		},
	} {
		t.Run(why, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.Set(func(p *transporttest.Policy) { p.Window = 365 * 24 * time.Hour })
				r.Attester.Lifetime = 365 * 24 * time.Hour
				var offset atomic.Int64
				var told sync.Map
				var c *client.Client
				_, chip := withChip(t, r)
				c = r.client(t, chip, func(cfg *client.Config) {
					cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
					cfg.Trace = &client.Trace{Trace: transport.Trace{Unused: func(_ context.Context, e transport.TraceEvent) {
						if _, err := c.Token(context.Background()); err != nil && !errors.Is(err, client.ErrClosed) {
							t.Error(err)
						}
						told.Store(e.Err.Error(), true)
					}}}
				})
				if _, err := c.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // the next proof is signed
				spoil(r, &offset, c)
				if err := grant(t.Context(), c); err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Second)
				if _, isTold := told.Load(why); !isTold {
					t.Errorf("the hook was not told, or hangs")
				}
			})
		})
	}
}
