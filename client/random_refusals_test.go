// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"testing"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestRandomRefusalsReachNobody: a server that refuses good challenges now and
// then costs an app no request, only sends.
func TestRandomRefusalsReachNobody(t *testing.T) {
	for name, kind := range map[string]transporttest.Kind{"reusable": transporttest.Reusable, "single use": transporttest.SingleUse} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Kind: kind, Offer: transporttest.OfferAlways})
			r.Set(func(p *transporttest.Policy) { p.NoRandomRefusals = false })
			c := r.client(t)
			const n = 200
			for range n {
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if sends, refused := r.Count(transporttest.Token), r.Refused(); refused == 0 || sends != n+refused {
				t.Errorf("%d sends for %d requests, %d refused", sends, n, refused)
			}
		})
	}
}
