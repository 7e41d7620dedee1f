// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestNetHTTPRepeatsNoPoPAtAResource (N9): which gets the field all the same.
func TestNetHTTPRepeatsNoPoPAtAResource(t *testing.T) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key", "idempotency-key", "x-idempotency-KEY"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{})
			resource := f.server.URL + "/api"
			f.Transport = f.another(func(c *transport.Config) {
				c.Resources = []transport.Resource{{Identifier: resource}}
			})
			answer := func(how func(http.ResponseWriter)) {
				f.server.Set(func(p *policy) {
					p.Intercept = func(w http.ResponseWriter, _ transporttest.Request) bool {
						how(w)
						return true
					}
				})
			}
			post := func() *http.Request {
				req := newRequest(t, t.Context(), resource+"/things")
				req.Header[name] = []string{"1"}
				return req
			}
			answer(func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) })
			f.want(http.StatusOK, post()) // now there is a connection to reuse
			answer(func(http.ResponseWriter) { panic(http.ErrAbortHandler) })
			f.fail(post())
			var ids, keys []string
			for _, r := range f.server.Requests() {
				ids, keys = append(ids, r.PoP.ID), append(keys, r.Header.Get(name))
			}
			if len(ids) != 2 || ids[0] == ids[1] {
				t.Errorf("jti %q, want one for each request", ids)
			}
			for _, key := range keys {
				if key != "1" {
					t.Errorf("the resource got %q", key)
				}
			}
		})
	}
}

// TestNetHTTPRepeatsChallengeRequest (N9): asking for a challenge may be repeated, and is,
// when the reused connection that it went out on has died.
func TestNetHTTPRepeatsChallengeRequest(t *testing.T) {
	f := newFixture(t, policy{})
	base := network(t)
	withBase := func(c *transport.Config) { c.Base = base }
	f.Transport = f.another(withBase)
	f.token(http.StatusOK) // now there is a connection to reuse
	f.server.Forget()
	var fetches atomic.Int64
	f.server.Set(func(p *policy) {
		p.Intercept = func(_ http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint == transporttest.Challenge {
				if fetches.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
			}
			return false
		}
	})
	f.Transport = f.another(withBase) // which has no challenge yet
	f.token(http.StatusOK)
	f.counts(1, 2)
}
