// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestAttestationIsJudged (N4): what servers and resources say that makes an attestation
// doubtful. No such request is repeated.
func TestAttestationIsJudged(t *testing.T) {
	for _, test := range []struct {
		name       string
		atResource bool
		code       string
		doubted    bool
	}{
		{"server", false, "invalid_client_attestation", true},
		{"server", false, "invalid_client", true},
		{"server", false, "invalid_grant", false},
		{"server", false, "invalid_pop", false},
		{"resource", true, "invalid_client_attestation", true},
		{"resource", true, "invalid_client", false},
		{"resource", true, "invalid_token", false},
	} {
		t.Run(test.name+"/"+test.code, func(t *testing.T) {
			f := newFixture(t, policy{})
			resource := f.server.URL + "/api"
			f.Transport = f.another(func(c *transport.Config) {
				c.Resources = []transport.Resource{{Identifier: resource}}
			})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint == transporttest.Challenge {
						return false
					}
					writeCode(w, test.code)
					return true
				}
			})
			req := f.request(t.Context())
			if test.atResource {
				req = get(t, resource+"/things")
			}
			f.want(http.StatusBadRequest, req)
			var sends []string // attestations
			for _, r := range f.server.Requests() {
				if r.Endpoint != transporttest.Challenge {
					sends = append(sends, r.Attestation())
				}
			}
			doubted := f.source.Doubted()
			if len(sends) != 1 || (len(doubted) == 1) != test.doubted || len(doubted) > 1 || test.doubted && doubted[0] != sends[0] {
				t.Errorf("%d sends, %d attestations doubted, want 1 and doubted: %t", len(sends), len(doubted), test.doubted)
			}
		})
	}
}
