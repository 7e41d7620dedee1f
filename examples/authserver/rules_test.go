// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

const (
	badRequest  = http.StatusBadRequest
	badClient   = http.StatusUnauthorized
	attestation = "invalid_client_attestation"
)

// A ruleCase breaks one rule in a request that is otherwise right.
type ruleCase struct {
	name      string
	configure func(*authserver.Config)
	combined  bool
	corrupt   func(*fixture, *call)
	status    int
	code      string
	rule      string
	reason    string
}

func onlyPoP(cfg *authserver.Config) { cfg.Clients = cfg.Clients[:1] }
func maxAge(cfg *authserver.Config)  { cfg.MaxAttestationAge = 10 * time.Minute }
func nonces(cfg *authserver.Config)  { cfg.DPoPNonces = true }

// drop removes a claim of the PoP JWT.
func drop(claim string) func(*fixture, *call) {
	return func(f *fixture, c *call) { delete(c.pop.claims, claim) }
}

func audience(aud any) func(*fixture, *call) {
	return func(f *fixture, c *call) { c.pop.claims["aud"] = aud }
}

// raw sends a value of its own in place of a JWT.
func raw(header, value string) func(*fixture, *call) {
	return func(f *fixture, c *call) {
		switch header {
		case "OAuth-Client-Attestation":
			c.attestation = nil
		case "OAuth-Client-Attestation-PoP":
			c.pop = nil
		case "DPoP":
			c.dpop = nil
		}
		c.headers[http.CanonicalHeaderKey(header)] = []string{value}
	}
}

func TestRules(t *testing.T) {
	refused := 0
	ruleCases := slices.Concat(selectionCases, attestationCases, popCases, combinedCases)
	for _, tc := range ruleCases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, tc.configure)
			c := f.pop()
			if tc.combined {
				c = f.combined()
			}
			tc.corrupt(f, c)
			w := f.send(c)
			f.wantRefusal(w, tc.status, tc.code, tc.rule, tc.reason)
			// S6: this error always carries a challenge, and a good one.
			if tc.code == "use_attestation_challenge" {
				retry := f.pop()
				retry.pop.claims["challenge"] = w.Header().Get("OAuth-Client-Attestation-Challenge")
				f.wantToken(f.send(retry), "Bearer")
			}
			if tc.code == "use_dpop_nonce" {
				retry := f.combined()
				retry.dpop.claims["nonce"] = w.Header().Get("DPoP-Nonce")
				f.wantToken(f.send(retry), "DPoP")
			}
			if !t.Failed() {
				refused++
			}
		})
	}
	const want = 89
	if len(ruleCases) != want || refused != want {
		t.Errorf("%d cases, %d refused for the right reason, want %d", len(ruleCases), refused, want)
	}
}
