// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const (
	pop      = string(transport.MethodPoP)
	combined = string(transport.MethodDPoP)
	foreign  = "private_key_jwt"
)

// used says by which method a token was got, "error" if that was refused before
// anything but metadata was sent, "both" for what must not be.
func used(t *testing.T, r *rig, c *client.Client) string {
	t.Helper()
	_, err := c.Token(t.Context())
	requests := r.Requests(transporttest.Token)
	if errors.Is(err, client.ErrMetadata) && r.total() == r.Count(transporttest.Metadata) && r.store.signed.Load() == 0 && len(r.attester.calls()) == 0 {
		return "error"
	}
	if len(requests) == 0 {
		t.Fatalf("no token request: %v", err)
	}
	switch pops, proofs := len(requests[0].Header.Values(transport.HeaderAttestationPoP)), len(requests[0].Header.Values(transport.HeaderDPoP)); {
	case pops == 1 && proofs == 0:
		return pop
	case pops == 0 && proofs == 1:
		return combined
	default:
		return fmt.Sprintf("%d PoPs and %d proofs", pops, proofs)
	}
}

// list is a member of metadata: nil leaves it out.
func list(m map[string]any, name string, values []string) {
	delete(m, name)
	if values != nil {
		m[name] = values
	}
}

func TestMethodAutoC34C35(t *testing.T) {
	none := []string(nil)
	for _, test := range []struct {
		methods, popMethods []string
		auto, pop, combined string // what comes of it for each configured method
	}{
		{none, none, pop, pop, combined},
		{[]string{}, []string{}, pop, pop, combined},
		{[]string{pop}, none, pop, pop, "error"},
		{[]string{combined}, none, combined, "error", combined},
		{[]string{combined, pop}, none, pop, pop, combined},
		{[]string{foreign, combined}, none, combined, "error", combined},
		{[]string{foreign}, none, "error", "error", "error"},
		{[]string{"client_secret_basic", "none"}, none, "error", "error", "error"},
		{[]string{"ATTEST_JWT_CLIENT_AUTH"}, none, "error", "error", "error"},
		{none, []string{"attestation_pop_jwt"}, pop, pop, "error"},
		{none, []string{"dpop_combined"}, combined, "error", combined},
		{none, []string{"dpop_combined", "attestation_pop_jwt"}, pop, pop, combined},
		{none, []string{"none", "dpop_combined"}, combined, "error", combined},
		{none, []string{"none"}, pop, pop, combined},
		// The methods list is about client authentication; the other one, C35,
		// about an additional signal.
		{[]string{combined}, []string{"attestation_pop_jwt"}, combined, pop, combined},
		{[]string{pop}, []string{"dpop_combined"}, pop, pop, combined},
		{[]string{foreign}, []string{"attestation_pop_jwt"}, pop, pop, "error"},
		{[]string{foreign}, []string{"dpop_combined"}, combined, "error", combined},
		{[]string{foreign}, []string{"none"}, "error", "error", "error"},
		{[]string{pop, combined}, []string{"dpop_combined"}, pop, pop, combined},
	} {
		for configured, want := range map[transport.Method]string{"": test.auto, transport.MethodPoP: test.pop, transport.MethodDPoP: test.combined} {
			t.Run(fmt.Sprintf("%v %v %q", test.methods, test.popMethods, configured), func(t *testing.T) {
				r := newRig(t, transporttest.Policy{})
				r.edit(transporttest.Metadata, func(m map[string]any) {
					list(m, "token_endpoint_auth_methods_supported", test.methods)
					list(m, "client_attestation_pop_methods_supported", test.popMethods)
				})
				c := r.client(t, func(cfg *client.Config) { cfg.Method = configured })
				if got := used(t, r, c); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}

func TestMethodIsNotChangedByRefusal(t *testing.T) {
	for method, policy := range map[transport.Method]transporttest.Policy{
		transport.MethodPoP:  {Combined: true}, // the server wants the other one
		transport.MethodDPoP: {},
	} {
		t.Run(string(method), func(t *testing.T) {
			r := newRig(t, policy)
			r.edit(transporttest.Metadata, func(m map[string]any) { list(m, "token_endpoint_auth_methods_supported", []string{pop, combined}) })
			c := r.client(t, func(cfg *client.Config) { cfg.Method = method })
			if got := used(t, r, c); got != string(method) {
				t.Errorf("%s, want %s", got, method)
			}
			if n := r.Count(transporttest.Token); n != 1 {
				t.Errorf("%d token requests, want 1: no trial", n)
			}
		})
	}
}

// TestBindBodyNeedsPoPJWT: combined mode that metadata leads to has none, and
// nothing is sent or signed.
func TestBindBodyNeedsPoPJWT(t *testing.T) {
	bind := func(cfg *client.Config) { cfg.BindBody = true }
	t.Run("server", func(t *testing.T) {
		r := newRig(t, transporttest.Policy{Combined: true})
		if got := used(t, r, r.client(t, bind)); got != "error" {
			t.Errorf("%s, want an error", got)
		}
	})
	t.Run("resource", func(t *testing.T) {
		r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
		r.resources[0].describe(map[string]any{"client_attestation_pop_methods_supported": []string{"dpop_combined"}})
		if _, err := r.try(r.client(bind), r.resources[0].identifier, "Bearer"); !errors.Is(err, client.ErrMetadata) || strings.Contains(err.Error(), "transport: ") {
			t.Errorf("error %v, want ErrMetadata", err)
		}
		r.resources[0].counts(0, 1, 0)
	})
}

func TestAlgorithmsC7C34(t *testing.T) {
	const (
		attestation = "client_attestation_signing_alg_values_supported"
		popAlgs     = "client_attestation_pop_signing_alg_values_supported"
		dpopAlgs    = "dpop_signing_alg_values_supported"
	)
	type lists = map[string][]string
	for name, test := range map[string]struct {
		lists  lists
		key    string // algorithm
		dpop   client.DPoP
		method transport.Method
		ok     bool
	}{
		"nothing listed":                     {lists{}, "ES256", client.DPoPOwnKey, "", true},
		"empty lists":                        {lists{attestation: {}, popAlgs: {}, dpopAlgs: {}}, "ES256", client.DPoPOwnKey, "", true},
		"listed":                             {lists{popAlgs: {"ES512", "ES256"}}, "ES256", client.DPoPOff, "", true},
		"ES384 listed":                       {lists{popAlgs: {"ES384"}}, "ES384", client.DPoPOff, "", true},
		"EdDSA listed":                       {lists{popAlgs: {"EdDSA"}}, "EdDSA", client.DPoPOff, "", true},
		"PoP not listed":                     {lists{popAlgs: {"ES384"}}, "ES256", client.DPoPOff, "", false},
		"PoP in another case":                {lists{popAlgs: {"es256"}}, "ES256", client.DPoPOff, "", false},
		"DPoP list is of no concern":         {lists{dpopAlgs: {"ES384"}}, "ES256", client.DPoPOff, "", true},
		"DPoP own key not listed":            {lists{dpopAlgs: {"ES384"}}, "ES384", client.DPoPOwnKey, "", false},
		"DPoP instance key not listed":       {lists{dpopAlgs: {"ES256"}}, "ES384", client.DPoPInstanceKey, "", false},
		"DPoP instance key listed":           {lists{dpopAlgs: {"ES384"}}, "ES384", client.DPoPInstanceKey, "", true},
		"combined, not listed":               {lists{dpopAlgs: {"ES256"}}, "ES384", client.DPoPOff, transport.MethodDPoP, false},
		"combined, PoP list is of no matter": {lists{popAlgs: {"ES384"}, dpopAlgs: {"ES256"}}, "ES256", client.DPoPOff, transport.MethodDPoP, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: test.method == transport.MethodDPoP})
			r.edit(transporttest.Metadata, func(m map[string]any) {
				for _, name := range []string{attestation, popAlgs, dpopAlgs} {
					list(m, name, test.lists[name])
				}
			})
			key := countingKey{newKey(t, test.key), &r.store.signed}
			c := r.client(t, func(cfg *client.Config) { cfg.Key, cfg.Store, cfg.DPoP, cfg.Method = key, nil, test.dpop, test.method })
			_, err := c.Token(t.Context())
			if test.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, client.ErrMetadata) {
				t.Errorf("error %v, want ErrMetadata", err)
			}
			if n := r.total() - r.Count(transporttest.Metadata); n != 0 || r.store.signed.Load() != 0 {
				t.Errorf("%d requests sent, %d signatures made, want none", n, r.store.signed.Load())
			}
		})
	}
}

func TestAttesterIsToldAlgorithmsC7(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	algs := []string{"PS256", "ES256"}
	r.edit(transporttest.Metadata, func(m map[string]any) { m["client_attestation_signing_alg_values_supported"] = algs })
	if err := grant(t.Context(), r.client(t)); err != nil {
		t.Fatal(err)
	}
	if calls := r.attester.calls(); len(calls) != 1 || !slices.Equal(calls[0].SigningAlgs, algs) {
		t.Errorf("attester was asked %d times, for %q, want %q", len(calls), calls[0].SigningAlgs, algs)
	}
}
