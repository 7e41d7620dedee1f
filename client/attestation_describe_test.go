// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
)

// TestAttestationDescription: what the client knows of an attestation that a server
// refuses is said.
func TestAttestationDescription(t *testing.T) {
	key := newKey(t, "ES256")
	for name, test := range map[string]struct {
		claims map[string]any
		after  time.Duration
		want   string
	}{
		"new":          {nil, 0, `the attestation is signed with "ES256", expires in 1h0m0s and was issued 0s ago`},
		"old":          {nil, 50 * time.Minute, `the attestation is signed with "ES256", expires in 10m0s and was issued 50m0s ago`},
		"expired":      {nil, 2 * time.Hour, `the attestation is signed with "ES256", expired 1h0m0s ago and was issued 2h0m0s ago`},
		"of tomorrow":  {map[string]any{"iat": testNow.Add(24 * time.Hour).Unix()}, 0, `the attestation is signed with "ES256", expires in 1h0m0s and was issued 24h0m0s in the future by this clock`},
		"without iat":  {map[string]any{"iat": nil}, 0, `the attestation is signed with "ES256", expires in 1h0m0s; the attestation has no iat, which servers require since draft -12 (section 4)`},
		"iat is null":  {map[string]any{"iat": json.RawMessage("null")}, 0, "has no iat"},
		"iat is zero":  {map[string]any{"iat": 0}, 0, "issued 498708h0m0s ago"},
		"iat in 1.5e9": {map[string]any{"iat": json.RawMessage("1.5e9")}, 0, "issued 82041h20m0s ago"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := forge(t, key, testNow, forgery{claims: test.claims})
			got, err := client.DescribeAttestation(raw, client.AttestRequest{ClientID: "client", Key: key}, testNow, testNow.Add(test.after))
			if err != nil || !strings.Contains(got, test.want) || len(got) > 250 {
				t.Errorf("%q, %v, want %q", got, err, test.want)
			}
		})
	}
}
