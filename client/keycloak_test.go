// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestKeycloakDemands: what Keycloak would refuse is refused here, by the name of
// what is missing and with nothing sent. Other servers get the same attestation.
func TestKeycloakDemands(t *testing.T) {
	for name, test := range map[string]struct {
		kid  string
		iss  any
		alg  string
		want string // in the error; "" for none
	}{
		"all there":           {"1", "vendor", "ES256", ""},
		"no kid":              {"", "vendor", "ES256", "kid"},
		"no iss":              {"1", nil, "ES256", "iss"},
		"empty iss":           {"1", "", "ES256", "iss"},
		"iss of another type": {"1", 5, "ES256", "iss"},
		"no alg":              {"1", "vendor", "", "demands ES256"},
		"another alg":         {"1", "vendor", "ES384", "demands ES256"},
	} {
		for _, profile := range []transport.Profile{transport.ProfileKeycloak, transport.ProfileDraft12} {
			t.Run(name+"/"+string(profile), func(t *testing.T) {
				r := newRig(t, transporttest.Policy{NoEndpoint: true, Kind: transporttest.NoChallenges})
				r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
					if req.Profile != profile {
						t.Errorf("the attester is told profile %q, want %q", req.Profile, profile)
					}
					header := map[string]any{}
					if test.kid != "" {
						header["kid"] = test.kid
					}
					return forge(t, req.Key, r.clock.now(), forgery{header: header, claims: map[string]any{
						"sub": r.ClientID, "iss": test.iss,
						"cnf": map[string]any{"jwk": jose.JSONWebKey{Key: req.Key.Public(), Algorithm: test.alg}},
					}}), nil
				})
				_, err := r.client(t, func(cfg *client.Config) { cfg.Profile = profile }).Token(t.Context())
				sent := len(r.Requests(transporttest.Token))
				if test.want == "" || profile != transport.ProfileKeycloak {
					// The server knows another attester: it refuses, which is enough here.
					if errors.Is(err, client.ErrInvalidAttestation) || sent == 0 {
						t.Errorf("%v, %d requests", err, sent)
					}
					return
				}
				if !errors.Is(err, client.ErrInvalidAttestation) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "Keycloak") || sent != 0 {
					t.Errorf("%v, %d requests, want ErrInvalidAttestation with %q", err, sent, test.want)
				}
			})
		}
	}
}

// TestKeycloakClaims: the PoP JWT has what the draft says, and "iss".
func TestKeycloakClaims(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.attester.set(selfAttest(t))
	_, err := r.client(t, func(cfg *client.Config) { cfg.Profile = transport.ProfileKeycloak }).Token(t.Context())
	if err == nil {
		t.Fatal("the server trusts any attester")
	}
	request := r.Requests(transporttest.Token)[0]
	if got := slices.Sorted(maps.Keys(request.PoP.Claims)); !slices.Equal(got, []string{"aud", "challenge", "iat", "iss", "jti"}) || request.PoP.Claims["iss"] != r.ClientID {
		t.Errorf("claims %v", request.PoP.Claims)
	}
}
