// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// withDPoP puts proofs by another key beside the PoP JWTs of token and PAR
// requests.
func withDPoP(c *transport.Config) {
	c.DPoPKey = dpopKey
	for i := range c.Servers {
		c.Servers[i].DPoPEndpoints = c.Servers[i].Endpoints[:2]
	}
}

var dpopKey = newKey()

func TestC23DPoPBesideThePoP(t *testing.T) {
	f := newFixture(t, policy{Nonces: true}, withDPoP)
	f.token(http.StatusOK)
	f.counts(1, 1) // C24: the nonce came with the challenge
	r := f.server.Requests(transporttest.Token)[0]
	if r.PoP == nil || r.DPoP == nil || r.DPoP.Nonce == "" {
		t.Fatalf("PoP %v, DPoP %v", r.PoP, r.DPoP)
	}
	if r.DPoP.ID == r.PoP.ID {
		t.Error("PoP and DPoP proof have one jti")
	}
	jwk, err := keystore.JWK(dpopKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	want, err := jwk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := r.DPoP.Header["jwk"].(map[string]any)["x"].(string); x == "" || !strings.Contains(string(want), x) {
		t.Errorf("jwk %v, want %s", r.DPoP.Header["jwk"], want)
	}
	f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Revocation)))
	if r := f.server.Requests(transporttest.Revocation)[0]; r.DPoP != nil || r.PoP == nil {
		t.Error("a request that is no DPoP endpoint's has a DPoP proof")
	}
}

func TestC43DPoPProof(t *testing.T) {
	f := newFixture(t, policy{}, withDPoP)
	f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Token)+"?tenant=1"))
	r := f.server.Requests(transporttest.Token)[0]
	if names := slices.Sorted(maps.Keys(r.DPoP.Header)); !slices.Equal(names, []string{"alg", "jwk", "typ"}) || r.DPoP.Header["typ"] != "dpop+jwt" {
		t.Errorf("header %v", r.DPoP.Header)
	}
	if names := slices.Sorted(maps.Keys(r.DPoP.Claims)); !slices.Equal(names, []string{"htm", "htu", "iat", "jti"}) {
		t.Errorf("claims %v", names)
	}
	if r.DPoP.Claims["htm"] != "POST" || r.DPoP.Claims["htu"] != f.server.Endpoint(transporttest.Token) {
		t.Errorf("htm %v, htu %v", r.DPoP.Claims["htm"], r.DPoP.Claims["htu"])
	}
	if _, private := r.DPoP.Header["jwk"].(map[string]any)["d"]; private {
		t.Error("the private key was sent")
	}
}

// TestC20CombinedMode: one proof for both, no PoP JWT, no challenge (C22).
func TestC20CombinedMode(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		t.Run(fmt.Sprint(nonces), func(t *testing.T) {
			f := newFixture(t, policy{Combined: true, Nonces: nonces})
			for range 3 {
				f.token(http.StatusOK)
			}
			f.counts(3, 1)
			for _, r := range f.server.Requests(transporttest.Token) {
				if len(r.Header.Values(transport.HeaderAttestationPoP)) != 0 || r.DPoP == nil || (r.DPoP.Nonce != "") != nonces {
					t.Errorf("PoP fields %d, DPoP %v", len(r.Header.Values(transport.HeaderAttestationPoP)), r.DPoP)
				}
				if _, ok := r.DPoP.Claims["challenge"]; ok {
					t.Error("the proof has a challenge")
				}
			}
		})
	}
}

func TestC22CombinedModeIgnoresChallenges(t *testing.T) {
	f := newFixture(t, policy{Combined: true, Nonces: true})
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			w.Header().Set(transport.HeaderChallenge, "not for a nonce")
			return false
		}
	})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.DPoP.Nonce == "not for a nonce" || r.DPoP.Nonce == "" {
			t.Errorf("nonce %q", r.DPoP.Nonce)
		}
	}
}

// TestC44NonceRetry: once, with the error's own nonce; and the newest is used
// from then on, whatever response it came with.
func TestC44NonceRetry(t *testing.T) {
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined=%v", combined), func(t *testing.T) {
			f := newFixture(t, policy{Combined: combined, Nonces: true}, withDPoP)
			f.token(http.StatusOK)
			f.server.RotateNonce()
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(2, 0)
			f.token(http.StatusOK)
			f.counts(3, 0)
			f.server.Set(func(p *policy) { p.Offer = transporttest.OfferAlways })
			f.server.Forget()
			f.token(http.StatusOK)
			f.server.RotateNonce() // the next one comes with a success
			f.want(http.StatusOK, newRequest(t, t.Context(), f.server.Endpoint(transporttest.Revocation)))
			f.token(http.StatusOK)
			if !combined { // there the revocation request has no proof, and brings the nonce
				f.counts(2, 0)
			}
		})
	}
	t.Run("no nonce with the error", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		f.token(http.StatusOK)
		f.server.Forget()
		f.server.Set(func(p *policy) { p.Intercept = dpopError("") })
		f.token(http.StatusBadRequest)
		f.counts(1, 0)
	})
	t.Run("a new nonce each time", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		f.server.Set(func(p *policy) { p.Intercept = dpopError("n") })
		f.token(http.StatusBadRequest)
		f.counts(2, 1)
	})
}

// dpopError refuses every token request for its nonce.
func dpopError(nonce string) func(http.ResponseWriter, transporttest.Request) bool {
	n := 0
	return func(w http.ResponseWriter, r transporttest.Request) bool {
		if r.Endpoint != transporttest.Token {
			return false
		}
		if n++; nonce != "" {
			w.Header().Set(transport.HeaderDPoPNonce, fmt.Sprint(nonce, n))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
		return true
	}
}

// TestOneDPoPField: with a proof of our own the caller's does not stay, in
// whatever case it is; without, it is the caller's affair.
func TestOneDPoPField(t *testing.T) {
	for _, name := range []string{"DPoP", "Dpop", "dpop", "dPoP"} {
		f := newFixture(t, policy{Combined: true})
		req := f.request(t.Context())
		req.Header[name] = []string{"the caller's"}
		f.want(http.StatusOK, req)
	}
	f := newFixture(t, policy{})
	req := f.request(t.Context())
	req.Header.Set("DPoP", "the caller's")
	f.want(http.StatusBadRequest, req)
	if got := f.server.Requests(transporttest.Token)[0].Header.Get("DPoP"); got != "the caller's" {
		t.Errorf("DPoP %q", got)
	}
}

// TestC24OneFetchForChallengeAndNonce: the endpoint's answer says whether it has
// nonces, so it need not be asked for one again.
func TestC24OneFetchForChallengeAndNonce(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		for _, kind := range []transporttest.Kind{transporttest.Reusable, transporttest.NoChallenges} {
			t.Run(fmt.Sprintf("nonces=%v,kind=%d", nonces, kind), func(t *testing.T) {
				f := newFixture(t, policy{Nonces: nonces, Kind: kind}, withDPoP)
				f.token(http.StatusOK)
				f.counts(1, 1)
				f.token(http.StatusOK)
				f.counts(2, 1)
			})
		}
	}
}
