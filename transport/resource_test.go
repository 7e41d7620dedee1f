// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC13ResourceHasItsOwnAudience, and its own challenges, though it is on the
// authorization server's origin (C14, C26, C32).
func TestC13ResourceHasItsOwnAudience(t *testing.T) {
	f := newFixture(t, policy{Offer: transporttest.OfferAlways})
	resource := f.server.URL + "/api"
	f.Transport = f.another(func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: resource, ChallengeEndpoint: f.server.URL + "/api-challenge"}}
	})
	var atResource []string
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			switch r.Path {
			case "/api-challenge":
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"attestation_challenge":"resource 0"}`)
			case "/api/things":
				if r.PoP == nil || r.PoP.Audience != resource {
					t.Errorf("PoP %+v, want one with aud %s", r.PoP, resource)
					return false
				}
				atResource = append(atResource, r.PoP.Challenge)
				w.Header().Set(transport.HeaderChallenge, fmt.Sprint("resource ", len(atResource)))
			default:
				return false
			}
			return true
		}
	})
	for range 2 {
		f.token(http.StatusOK)
		f.want(http.StatusOK, get(t, resource+"/things"))
	}
	if !slices.Equal(atResource, []string{"resource 0", "resource 1"}) {
		t.Errorf("the resource got challenges %q", atResource)
	}
	for _, challenge := range f.sent() {
		if slices.Contains([]string{"resource 0", "resource 1", "resource 2"}, challenge) {
			t.Errorf("the authorization server got the resource's challenge %q", challenge)
		}
	}
	f.counts(2, 1)
}

// TestUnattestedResource gets no attestation, and a DPoP proof only for a bound
// token.
func TestUnattestedResource(t *testing.T) {
	var got *http.Request
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: "https://rs.example/api", Unattested: true}}
		c.DPoPKey = dpopKey
		c.Base = recording(&got)
	})
	for authorization, proves := range map[string]bool{"": false, "Bearer t": false, "DPoP t": true, "dpop t": true} {
		req := get(t, "https://rs.example/api")
		req.Header.Set("Authorization", authorization)
		f.want(http.StatusOK, req)
		if got.Header.Get(transport.HeaderAttestation) != "" || got.Header.Get(transport.HeaderAttestationPoP) != "" {
			t.Errorf("Authorization %q: an attestation was sent", authorization)
		}
		if has := got.Header.Get(transport.HeaderDPoP) != ""; has != proves {
			t.Errorf("Authorization %q: DPoP proof %v, want %v", authorization, has, proves)
		}
	}
}
