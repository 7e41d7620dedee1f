// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestEverythingAtOnce: contract line 13, for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.SingleUse} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			f := newFixture(t, policy{Kind: kind, Offer: transporttest.OfferAlways, RefuseEvery: 7, Window: time.Hour})
			f.server.Attester.Lifetime = time.Minute // an attestation expires midway
			var seen atomic.Int64
			f.server.Set(func(p *policy) {
				p.NoRandomRefusals = false
				p.Before = func(transporttest.Request) {
					if seen.Add(1)%40 == 0 {
						f.server.Rotate()
						f.clock.advance(15 * time.Second)
					}
				}
			})
			var callers sync.WaitGroup
			for g := range 64 {
				callers.Go(func() {
					for i := range 5 {
						ctx, cancel := context.WithCancel(t.Context())
						if (g+i)%9 == 0 {
							cancel()
						}
						resp, err := f.RoundTrip(f.request(ctx))
						if err == nil {
							read(t, resp)
						} else if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
						cancel()
					}
				})
			}
			callers.Wait()
			f.noneTwice(false)
			requests := f.server.Requests(transporttest.Token)
			attestations := make(map[string]bool)
			for _, r := range requests {
				attestations[r.Attestation()] = true
				// An attestation may expire on its way.
				if r.Code != "" && r.Code != "use_attestation_challenge" && !strings.Contains(r.Reason, "expired") {
					t.Errorf("%s: %s", r.Code, r.Reason)
				}
			}
			if len(attestations) < 2 {
				t.Error("no attestation expired midway")
			}
			if len(requests) < 250 || len(requests) > 2*64*5 {
				t.Errorf("%d sends", len(requests))
			}
		})
	}
}
