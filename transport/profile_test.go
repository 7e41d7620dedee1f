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

// TestCodeInErrorDescription: for that profile only.
func TestCodeInErrorDescription(t *testing.T) {
	for profile, sends := range map[transport.Profile]int{"": 1, transport.ProfileDraft10: 1, transport.ProfileOpenID4VCI: 2} {
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
