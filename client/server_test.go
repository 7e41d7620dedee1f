// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/instancekey/instancekey/client"
)

func TestMetadata(t *testing.T) {
	want := client.Metadata{
		Issuer:                             issuerURL,
		AuthorizationEndpoint:              "https://as.example.com/authorize",
		TokenEndpoint:                      "https://as.example.com/token",
		PushedAuthorizationRequestEndpoint: "https://as.example.com/par",
		DeviceAuthorizationEndpoint:        "https://as.example.com/device",
		BackchannelAuthenticationEndpoint:  "https://as.example.com/ciba",
		IntrospectionEndpoint:              "https://as.example.com/introspect",
		RevocationEndpoint:                 "https://as.example.com/revoke",
		ChallengeEndpoint:                  "https://as.example.com/challenge",
		TokenEndpointAuthMethods:           []string{pop, foreign},
		AttestationSigningAlgs:             []string{"ES256"},
		AttestationPoPSigningAlgs:          []string{"ES256"},
		PoPMethods:                         []string{"attestation_pop_jwt"},
		DPoPSigningAlgs:                    []string{"ES256"},
	}
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, text(document(issuerURL, map[string]any{
		"authorization_endpoint":                              want.AuthorizationEndpoint,
		"pushed_authorization_request_endpoint":               want.PushedAuthorizationRequestEndpoint,
		"device_authorization_endpoint":                       want.DeviceAuthorizationEndpoint,
		"backchannel_authentication_endpoint":                 want.BackchannelAuthenticationEndpoint,
		"introspection_endpoint":                              want.IntrospectionEndpoint,
		"revocation_endpoint":                                 want.RevocationEndpoint,
		"challenge_endpoint":                                  want.ChallengeEndpoint,
		"token_endpoint_auth_methods_supported":               want.TokenEndpointAuthMethods,
		"client_attestation_signing_alg_values_supported":     want.AttestationSigningAlgs,
		"client_attestation_pop_signing_alg_values_supported": want.AttestationPoPSigningAlgs,
		"client_attestation_pop_methods_supported":            want.PoPMethods,
		"dpop_signing_alg_values_supported":                   want.DPoPSigningAlgs,
		"of_no_concern":                                       true,
	})))
	for range 2 {
		got, err := d.Metadata(t.Context())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("metadata %+v, %v, want %+v", got, err, want)
		}
		// The copy is the caller's.
		got.TokenEndpoint = "https://elsewhere.example.com/token"
		for _, list := range [][]string{got.TokenEndpointAuthMethods, got.AttestationSigningAlgs, got.AttestationPoPSigningAlgs, got.PoPMethods, got.DPoPSigningAlgs} {
			list[0] = "changed"
		}
	}
	if visits := d.site.visits(); len(visits) != 1 || d.store.signed.Load() != 0 || len(d.attester.calls()) != 0 {
		t.Errorf("requests %v, %d signatures, attester asked %d times; want one for metadata", visits, d.store.signed.Load(), len(d.attester.calls()))
	}
}

func TestMetadataErrors(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, text(document(issuerURL+"/", nil)))
	if got, err := d.Metadata(t.Context()); !errors.Is(err, client.ErrMetadata) || !reflect.DeepEqual(got, client.Metadata{}) {
		t.Errorf("of another issuer: %+v, %v, want ErrMetadata and nothing else", got, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Metadata(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.Close()
	if _, err := d.Metadata(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v, want ErrClosed", err)
	}
}
