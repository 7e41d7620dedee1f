// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC18OpenID4VCI: the claims that verifiers of older drafts want, and no
// member that is empty.
func TestC18OpenID4VCI(t *testing.T) {
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.ClientID, c.Servers[0].Profile = "client", transport.ProfileOpenID4VCI
	})
	f.token(http.StatusOK)
	pop := f.server.Requests(transporttest.Token)[0].PoP
	if names := slices.Sorted(maps.Keys(pop.Claims)); !slices.Equal(names, []string{"aud", "challenge", "exp", "iat", "iss", "jti", "nbf", "nonce"}) {
		t.Errorf("claims %q", names)
	}
	exp, _ := pop.Claims["exp"].(float64)
	if pop.Claims["iss"] != "client" || pop.Nonce != pop.Challenge || pop.Claims["nbf"] != float64(pop.IssuedAt) || int64(exp) <= pop.IssuedAt || int64(exp) > pop.IssuedAt+300 {
		t.Errorf("claims %v", pop.Claims)
	}
	t.Run("no challenge", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.NoChallenges, NoEndpoint: true}, func(c *transport.Config) {
			c.ClientID, c.Servers[0].Profile = "client", transport.ProfileOpenID4VCI
		})
		f.token(http.StatusOK)
		if claims := f.server.Requests(transporttest.Token)[0].PoP.Claims; claims["nonce"] != nil || claims["challenge"] != nil {
			t.Errorf("claims %v", claims)
		}
	})
}

// TestCodeInErrorDescription: for the profiles of -07 only.
func TestCodeInErrorDescription(t *testing.T) {
	for profile, sends := range map[transport.Profile]int{"": 1, transport.ProfileDraft10: 1, transport.ProfileOpenID4VCI: 2, transport.ProfileKeycloak: 2} {
		t.Run(string(profile), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
				c.ClientID, c.Servers[0].Profile = "client", profile
			})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					w.Header().Set(transport.HeaderChallenge, "c"+r.PoP.ID)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprint(w, `{"error":"invalid_client","error_description":"use_attestation_challenge"}`)
					return true
				}
			})
			f.token(http.StatusBadRequest)
			f.counts(sends, 0)
		})
	}
}

// TestDraft10CombinedMode: the challenge is the proof's nonce.
func TestDraft10CombinedMode(t *testing.T) {
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.Servers[0].Method, c.Servers[0].Profile = transport.MethodDPoP, transport.ProfileDraft10
	})
	var nonces []string
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			switch {
			case r.Endpoint == transporttest.Challenge:
				fmt.Fprint(w, `{"attestation_challenge":"first"}`)
			case len(nonces) == 0:
				nonces = append(nonces, r.DPoP.Nonce)
				w.Header().Set(transport.HeaderChallenge, "second")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"error":"use_attestation_challenge"}`)
			default:
				nonces = append(nonces, r.DPoP.Nonce)
				fmt.Fprint(w, `{"access_token":"a","token_type":"DPoP"}`)
			}
			return true
		}
	})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	if !slices.Equal(nonces, []string{"first", "second", "second"}) {
		t.Errorf("nonces %q", nonces)
	}
	f.counts(3, 1)
}

// TestDraft10ChallengeIsTheNonce: they are one value, whatever it is called by
// the response that brings it or by the refusal.
func TestDraft10ChallengeIsTheNonce(t *testing.T) {
	type answer struct {
		header, code string // "": 200
	}
	tests := []struct {
		name    string
		answers []answer
		sent    []string
		fetches int
	}{
		{"nonce of a success", []answer{{"DPoP-Nonce", ""}, {"DPoP-Nonce", ""}, {}, {}},
			[]string{"fetched 1", "offered 1", "offered 2", "offered 2"}, 1},
		{"challenge of a success", []answer{{transport.HeaderChallenge, ""}, {}},
			[]string{"fetched 1", "offered 1"}, 1},
		{"refused as nonce: single use", []answer{{}, {"DPoP-Nonce", "use_dpop_nonce"}, {}, {}, {}},
			[]string{"fetched 1", "fetched 1", "offered 2", "fetched 2", "fetched 3"}, 3},
		{"refused as challenge: single use", []answer{{}, {transport.HeaderChallenge, "use_attestation_challenge"}, {}, {}, {}},
			[]string{"fetched 1", "fetched 1", "offered 2", "fetched 2", "fetched 3"}, 3},
		{"refused as one, offered as the other", []answer{{"DPoP-Nonce", "use_attestation_challenge"}, {}},
			[]string{"fetched 1", "offered 1"}, 1},
		{"refused without another", []answer{{"", "use_dpop_nonce"}, {}, {}},
			[]string{"fetched 1", "fetched 2", "fetched 2"}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{}, func(c *transport.Config) {
				c.Servers[0].Method, c.Servers[0].Profile = transport.MethodDPoP, transport.ProfileDraft10
			})
			var sent []string
			fetches := 0
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint == transporttest.Challenge {
						fetches++
						fmt.Fprintf(w, `{"attestation_challenge":"fetched %d"}`, fetches)
						return true
					}
					sent = append(sent, r.DPoP.Nonce)
					answer := test.answers[len(sent)-1]
					if answer.header != "" {
						w.Header().Set(answer.header, fmt.Sprint("offered ", len(sent)))
					}
					if answer.code != "" {
						writeCode(w, answer.code)
					}
					return true
				}
			})
			for len(sent) < len(test.answers) {
				f.token(http.StatusOK)
			}
			if !slices.Equal(sent, test.sent) || fetches != test.fetches {
				t.Errorf("sent %q with %d fetches, want %q with %d", sent, fetches, test.sent, test.fetches)
			}
		})
	}
	t.Run("both codes are one cause", func(t *testing.T) {
		f := newFixture(t, policy{}, func(c *transport.Config) {
			c.Servers[0].Method, c.Servers[0].Profile = transport.MethodDPoP, transport.ProfileDraft10
		})
		sends := 0
		f.server.Set(func(p *policy) {
			p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
				if r.Endpoint != transporttest.Token {
					return false
				}
				sends++
				w.Header().Set("DPoP-Nonce", fmt.Sprint("offered ", sends))
				writeCode(w, []string{"use_dpop_nonce", "use_attestation_challenge"}[sends%2])
				return true
			}
		})
		f.token(http.StatusBadRequest)
		f.counts(2, 1)
	})
}
