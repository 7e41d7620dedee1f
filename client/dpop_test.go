// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// proofKey returns the thumbprint of the key in a DPoP proof's header.
func proofKey(t *testing.T, request transporttest.Request) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(request.Header.Get(transport.HeaderDPoP), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	thumbprint, err := keystore.Thumbprint(jws.Signatures[0].Protected.JSONWebKey.Key)
	if err != nil {
		t.Fatal(err)
	}
	return thumbprint
}

func TestDPoPKeys(t *testing.T) {
	for name, test := range map[string]struct {
		dpop     client.DPoP
		method   transport.Method
		proofs   bool
		instance bool // by the Client Instance Key
		pops     bool
	}{
		"off":                    {client.DPoPOff, transport.MethodPoP, false, false, true},
		"own key C23":            {client.DPoPOwnKey, transport.MethodPoP, true, false, true},
		"instance key":           {client.DPoPInstanceKey, transport.MethodPoP, true, true, true},
		"combined C20":           {client.DPoPOff, transport.MethodDPoP, true, true, false},
		"combined, own key":      {client.DPoPOwnKey, transport.MethodDPoP, true, true, false},
		"combined, instance key": {client.DPoPInstanceKey, transport.MethodDPoP, true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: !test.pops, Nonces: test.proofs})
			c := r.client(t, func(cfg *client.Config) { cfg.DPoP, cfg.Method = test.dpop, test.method })
			for range 3 {
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if code := postForm(t, c.HTTPClient(), r.Endpoint(transporttest.PAR), url.Values{"client_id": {r.ClientID}}); code != 201 {
				t.Errorf("PAR answered %d", code)
			}
			instance, _ := keystore.Thumbprint(c.Key().Public())
			keys, jtis := make(map[string]bool), make(map[string]bool)
			requests := r.Requests(transporttest.Token, transporttest.PAR)
			for _, request := range requests {
				if (request.DPoP != nil) != test.proofs || (request.PoP != nil) != test.pops {
					t.Fatalf("proof: %t, PoP: %t", request.DPoP != nil, request.PoP != nil)
				}
				if request.DPoP != nil {
					keys[proofKey(t, request)] = true
					jtis[request.DPoP.ID] = true
					// The strict server has looked at the rest.
					if request.DPoP.Claims["htu"] != r.URL+request.Path || request.DPoP.Claims["htm"] != "POST" || request.DPoP.Nonce == "" {
						t.Errorf("proof %v", request.DPoP.Claims)
					}
				}
			}
			if test.proofs && (len(keys) != 1 || keys[instance] != test.instance || len(jtis) != len(requests)) {
				t.Errorf("proofs by keys %v with %d jtis in %d requests, by the instance key: want %t", slices.Collect(maps.Keys(keys)), len(jtis), len(requests), test.instance)
			}

			// Where nothing is issued no proof goes beside the PoP JWT.
			if code := postForm(t, c.HTTPClient(), r.Endpoint(transporttest.Introspection), url.Values{"token": {"t"}}); code != 200 {
				t.Errorf("introspection answered %d", code)
			}
			for _, request := range r.Requests(transporttest.Introspection) {
				if want := !test.pops; (request.DPoP != nil) != want {
					t.Errorf("introspection with a proof: %t, want %t", request.DPoP != nil, want)
				}
			}
		})
	}
}

// TestDPoPKeyAtResourceC46: the proof at a resource is by the key that the token
// is bound to, also where only the server's metadata settles which that is, and
// where it comes to be another one.
func TestDPoPKeyAtResourceC46(t *testing.T) {
	for name, offered := range map[string][]string{
		"combined":               {combined},
		"PoP JWT":                {pop},
		"combined, then PoP JWT": {combined, pop},
		"PoP JWT, then combined": {pop, combined},
	} {
		for _, tokenFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, token first: %t", name, tokenFirst), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					var proofs []string // keys of those at the resource
					site := newSite()
					site.set(api, func(w http.ResponseWriter, req *http.Request) {
						proofs = append(proofs, proofKey(t, transporttest.Request{Header: req.Header}))
					})
					a := newAPIRig(t, r, ownKey, func(cfg *client.Config) {
						cfg.Base = byHost{"api.example.com": inProcess{site}, "": inProcess{r}}
					})
					if !tokenFirst { // and thus no metadata either
						r.Set(func(p *transporttest.Policy) { p.Combined = offered[0] == combined })
						if err := a.get(t.Context(), "DPoP token-of-before"); err != nil {
							t.Fatal(err)
						}
						proofs = nil
					}
					for i, method := range offered {
						if i > 0 {
							a.clock.advance(25 * time.Hour)
						}
						r.Set(func(p *transporttest.Policy) { p.Combined = method == combined })
						if _, err := a.Endpoint(t.Context()); err != nil { // metadata is renewed
							t.Fatal(err)
						}
						synctest.Wait()
						if err := grant(t.Context(), a.Client); err != nil {
							t.Fatal(err)
						}
						for range 2 {
							if err := a.get(t.Context(), "DPoP token"); err != nil {
								t.Fatal(err)
							}
						}
						requests := r.Requests(transporttest.Token)
						bound := proofKey(t, requests[len(requests)-1])
						instance, _ := keystore.Thumbprint(a.Key().Public())
						if (bound == instance) != (method == combined) || !slices.Equal(proofs, []string{bound, bound}) {
							t.Errorf("%s: the token is bound to %s, the proofs are by %q, the instance key is %s", method, bound, proofs, instance)
						}
						proofs = nil
					}
				})
			})
		}
	}
}

func TestDPoPOwnKeyIsOfOneClient(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	keys := make(map[string]bool)
	for range 2 {
		c := r.client(t, func(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey })
		signed := r.store.signed.Load()
		for range 2 {
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.store.signed.Load() - signed; n != 2 {
			t.Errorf("%d signatures by the instance key, want 2: one PoP for each request", n)
		}
	}
	for _, request := range r.Requests(transporttest.Token) {
		keys[proofKey(t, request)] = true
	}
	if len(keys) != 2 {
		t.Errorf("%d keys for 2 clients", len(keys))
	}
}

func TestDPoPCounts(t *testing.T) {
	for name, test := range map[string]struct {
		policy      transporttest.Policy
		edit        func(*client.Config)
		cold, again int // requests
		rotated     int // requests after the server has rotated its nonce
	}{
		"combined, endpoint gives nonces C24":  {transporttest.Policy{Combined: true, Nonces: true}, nil, 3, 1, 2},
		"combined, no endpoint C44":            {transporttest.Policy{Combined: true, Nonces: true, NoEndpoint: true}, nil, 3, 1, 2},
		"combined, no nonces, endpoint":        {transporttest.Policy{Combined: true}, nil, 3, 1, 1},
		"combined, no nonces, no endpoint":     {transporttest.Policy{Combined: true, NoEndpoint: true}, nil, 2, 1, 1},
		"own key, endpoint gives both":         {transporttest.Policy{Nonces: true}, ownKey, 3, 1, 2},
		"own key, no nonces":                   {transporttest.Policy{}, ownKey, 3, 1, 1},
		"own key, no endpoint":                 {transporttest.Policy{Nonces: true, NoEndpoint: true}, ownKey, 4, 1, 2}, // challenge, then nonce
		"own key, nothing wanted, no endpoint": {transporttest.Policy{Kind: transporttest.NoChallenges, NoEndpoint: true}, ownKey, 2, 1, 1},
		"no DPoP":                              {transporttest.Policy{}, nil, 3, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, test.policy)
			c := r.client(t, func(cfg *client.Config) {
				if test.edit != nil {
					test.edit(cfg)
				}
			})
			for i, want := range []int{test.cold, test.again, test.again, test.rotated, test.again} {
				if i == 3 {
					r.RotateNonce()
				}
				before := r.total()
				if err := grant(t.Context(), c); err != nil {
					t.Fatalf("token %d: %v", i, err)
				}
				if n := r.total() - before; n != want {
					t.Errorf("token %d: %d requests, want %d", i, n, want)
				}
			}
		})
	}
}

func ownKey(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey }

func TestProfileClaims(t *testing.T) {
	type names = []string
	for name, test := range map[string]struct {
		profile  transport.Profile
		combined bool
		claims   names // of the PoP JWT or the combined proof
	}{
		"draft-12":            {transport.ProfileDraft12, false, names{"aud", "challenge", "iat", "jti"}},
		"default":             {"", false, names{"aud", "challenge", "iat", "jti"}},
		"draft-10":            {transport.ProfileDraft10, false, names{"aud", "challenge", "iat", "jti"}},
		"oid4vci-1":           {transport.ProfileOpenID4VCI, false, names{"aud", "challenge", "exp", "iat", "iss", "jti", "nbf", "nonce"}},
		"draft-12, combined":  {transport.ProfileDraft12, true, names{"htm", "htu", "iat", "jti"}},
		"draft-10, combined":  {transport.ProfileDraft10, true, names{"htm", "htu", "iat", "jti", "nonce"}},
		"oid4vci-1, combined": {transport.ProfileOpenID4VCI, true, names{"htm", "htu", "iat", "jti"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: test.combined})
			if test.combined { // a challenge that only -10 takes for a nonce C22
				r.edit(transporttest.Challenge, func(answer map[string]any) { answer["attestation_challenge"] = "the-challenge" })
			}
			if err := grant(t.Context(), r.client(t, func(cfg *client.Config) { cfg.Profile = test.profile })); err != nil {
				t.Fatal(err)
			}
			request := r.Requests(transporttest.Token)[0]
			proof := request.PoP
			if test.combined {
				proof = request.DPoP
			}
			if got := slices.Sorted(maps.Keys(proof.Claims)); !slices.Equal(got, test.claims) {
				t.Errorf("claims %v, want %v", got, test.claims)
			}
			for name, want := range map[string]any{"iss": r.ClientID, "aud": r.Issuer} {
				if value, ok := proof.Claims[name]; ok && value != want {
					t.Errorf("claim %s is %v, want %v", name, value, want)
				}
			}
			if nonce, ok := proof.Claims["nonce"]; ok && nonce != "the-challenge" && nonce != proof.Challenge {
				t.Errorf("nonce %v is not the challenge", nonce)
			}
			if request.Header.Get(transport.HeaderChallenge) != "" || strings.Contains(string(request.Body), "challenge") {
				t.Error("the challenge is somewhere else, too")
			}
		})
	}
}
