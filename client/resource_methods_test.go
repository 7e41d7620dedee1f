// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestResourceMethods: client_attestation_pop_methods_supported (C35).
func TestResourceMethods(t *testing.T) {
	const pop, combined, none = "attestation_pop_jwt", "dpop_combined", "none"
	type want struct{ pop, dpop bool } // what a request with a DPoP-bound token carries beside it
	for name, test := range map[string]struct {
		methods []string
		method  transport.Method
		want    want
	}{
		"not said":                     {nil, "", want{false, true}},
		"empty":                        {[]string{}, "", want{false, true}},
		"PoP JWT":                      {[]string{pop}, "", want{true, true}},
		"combined":                     {[]string{combined}, "", want{false, true}},
		"both":                         {[]string{combined, pop}, "", want{true, true}},
		"both, configured":             {[]string{combined, pop}, transport.MethodDPoP, want{false, true}},
		"none":                         {[]string{none}, "", want{false, true}},
		"none, configured":             {[]string{none}, transport.MethodDPoP, want{false, true}},
		"PoP JWT or none":              {[]string{none, pop}, "", want{true, true}},
		"what nobody knows":            {[]string{"x"}, "", want{false, true}},
		"not said, combined":           {nil, transport.MethodDPoP, want{false, true}},
		"names are case-sensitive C35": {[]string{"DPOP_COMBINED"}, "", want{false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			r.attestation = client.AttestListed
			rs := r.resources[0]
			rs.plain = !slices.Contains(test.methods, pop) && !slices.Contains(test.methods, combined)
			rs.combined = !test.want.pop && !rs.plain
			rs.challenge, rs.nonce = "c", "n"
			if test.methods != nil {
				rs.describe(map[string]any{"client_attestation_pop_methods_supported": test.methods})
			}
			c := r.client(func(cfg *client.Config) { cfg.Method, cfg.DPoP = test.method, client.DPoPInstanceKey })
			r.call(c, rs.identifier, "DPoP", http.StatusOK)
			last := rs.got()[len(rs.got())-1]
			if got := (want{last.PoP != nil, last.DPoP != nil}); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			thumbprint, _ := keystore.Thumbprint(r.key.Public())
			if last.DPoPKey != thumbprint {
				t.Errorf("DPoP proof by %s, the instance's key is %s", last.DPoPKey, thumbprint)
			}
			if rs.plain != (len(r.attester.calls()) == 0) {
				t.Errorf("attester asked %d times", len(r.attester.calls()))
			}
		})
	}
}

// TestResourceBearer: a DPoP proof goes beside a bearer token only in combined
// mode, and is then for that token too (RFC 9449, section 4.3).
func TestResourceBearer(t *testing.T) {
	for name, members := range map[string]map[string]any{
		"not said": nil,
		"combined": {"client_attestation_pop_methods_supported": []string{"dpop_combined"}},
		"none":     {"client_attestation_pop_methods_supported": []string{"none"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			r.attestation = client.AttestListed
			rs := r.resources[0]
			rs.plain, rs.combined = name != "combined", name == "combined"
			rs.describe(members)
			c := r.client(func(cfg *client.Config) { cfg.Method = transport.MethodDPoP })
			r.call(c, rs.identifier, "Bearer", http.StatusOK)
			rs.counts(1, 1, 0)
		})
	}
}

// TestResourceMethodMismatch: what cannot succeed is not tried (C35, C46).
func TestResourceMethodMismatch(t *testing.T) {
	for name, edit := range map[string]func(*client.Config){
		"PoP JWT is configured":               func(cfg *client.Config) { cfg.Method = transport.MethodPoP },
		"tokens are bound to another key C46": func(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey },
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			rs := r.resources[0]
			rs.combined = true
			rs.describe(map[string]any{"client_attestation_pop_methods_supported": []string{"dpop_combined"}})
			_, err := r.try(r.client(edit), rs.identifier, "DPoP")
			if !errors.Is(err, client.ErrMetadata) {
				t.Fatalf("error %v, want ErrMetadata", err)
			}
			// A resource's metadata has no methods of a token endpoint.
			if text := err.Error(); strings.Count(text, client.ErrMetadata.Error()) != 1 || strings.Contains(text, "token_endpoint") {
				t.Errorf("error %v", err)
			}
			rs.counts(0, 1, 0)
		})
	}
}
