// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestUpdateKeepsSingleUseChallenges: while the table is replaced again and again, what
// is known of a server stays: no challenge is given to two requests, none is refused,
// and each attestation is for the key of its proof, which the server checks.
func TestUpdateKeepsSingleUseChallenges(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse})
	f.token(http.StatusOK)
	f.token(http.StatusOK) // refused first, which teaches the kind
	f.server.Set(func(p *policy) { p.Offer = transporttest.OfferAlways })
	f.server.Forget()
	stop := make(chan struct{})
	updates := 0
	var updating sync.WaitGroup
	updating.Go(func() {
		for ; ; updates++ {
			select {
			case <-stop:
				return
			default:
			}
			resources := []transport.Resource{{Identifier: "https://rs.example.com/api"}}[:updates%2]
			if err := f.Update([]transport.Server{f.server.Transport()}, resources); err != nil {
				t.Error(err)
			}
		}
	})
	failed := f.together(16, 10)
	close(stop)
	updating.Wait()
	if refused := f.server.Refused(); failed != 0 || refused != 0 || updates < 2 {
		t.Errorf("%d requests failed, %d PoPs refused, %d updates", failed, refused, updates)
	}
	if n := f.server.Count(transporttest.Token); n != 160 {
		t.Errorf("%d token requests, want 160", n)
	}
	f.noneTwice(true)
}
