// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

const (
	popRegistration = `{"token_endpoint_auth_method":"attest_jwt_client_auth",` +
		`"client_attestation_pop_signing_alg_values_supported":["ALG"],"client_attestation_pop_methods_supported":["attestation_pop_jwt"]}`
	popDPoPRegistration = `{"token_endpoint_auth_method":"attest_jwt_client_auth",` +
		`"client_attestation_pop_signing_alg_values_supported":["ALG"],"client_attestation_pop_methods_supported":["attestation_pop_jwt"],"dpop_bound_access_tokens":true}`
	combinedRegistration = `{"token_endpoint_auth_method":"attest_jwt_client_auth_dpop",` +
		`"client_attestation_pop_methods_supported":["dpop_combined"],"dpop_bound_access_tokens":true}`
)

// registration returns what a Client says of itself, as JSON, and fails the test
// if saying it has sent or signed anything.
func registration(t *testing.T, r *rig, c *client.Client) string {
	t.Helper()
	requests, signed, asked := r.total(), r.store.signed.Load(), len(r.attester.calls())
	b, err := json.Marshal(c.Registration())
	if err != nil {
		t.Fatal(err)
	}
	if r.total() != requests || r.store.signed.Load() != signed || len(r.attester.calls()) != asked {
		t.Errorf("%d requests sent, %d signatures made, attester asked %d times, want none", r.total()-requests, r.store.signed.Load()-signed, len(r.attester.calls())-asked)
	}
	return string(b)
}

func TestRegistrationC40(t *testing.T) {
	for name, test := range map[string]struct {
		method transport.Method
		dpop   client.DPoP
		want   string
	}{
		"auto":                   {"", client.DPoPOff, popRegistration},
		"auto, own key":          {"", client.DPoPOwnKey, popDPoPRegistration},
		"auto, instance key":     {"", client.DPoPInstanceKey, popDPoPRegistration},
		"PoP JWT":                {transport.MethodPoP, client.DPoPOff, popRegistration},
		"PoP JWT, own key":       {transport.MethodPoP, client.DPoPOwnKey, popDPoPRegistration},
		"PoP JWT, instance key":  {transport.MethodPoP, client.DPoPInstanceKey, popDPoPRegistration},
		"combined":               {transport.MethodDPoP, client.DPoPOff, combinedRegistration},
		"combined, own key":      {transport.MethodDPoP, client.DPoPOwnKey, combinedRegistration},
		"combined, instance key": {transport.MethodDPoP, client.DPoPInstanceKey, combinedRegistration},
	} {
		for _, alg := range []string{"ES256", "ES384", "EdDSA"} {
			t.Run(name+" "+alg, func(t *testing.T) {
				r := newRig(t, transporttest.Policy{})
				c := r.client(t, func(cfg *client.Config) {
					cfg.Method, cfg.DPoP, cfg.Store, cfg.Key = test.method, test.dpop, nil, countingKey{newKey(t, alg), &r.store.signed}
				})
				if got, want := registration(t, r, c), strings.ReplaceAll(test.want, "ALG", alg); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}

// TestRegistrationAlgorithmsC40: of attestations the Client knows the algorithm
// only if it makes them itself. It never names "none" or a MAC.
func TestRegistrationAlgorithmsC40(t *testing.T) {
	key := newKey(t, "ES384")
	for name, test := range map[string]struct {
		attester client.Attester
		want     []string
	}{
		"self":             {client.SelfAttester{Key: key}, []string{"ES384"}},
		"self, by pointer": {&client.SelfAttester{Key: key}, []string{"ES384"}},
		"self with a MAC":  {client.SelfAttester{Key: macKey{key}}, nil},
		"self with none":   {client.SelfAttester{Key: noneKey{macKey{key}}}, nil},
		"over HTTP":        {client.HTTPAttester{URL: "https://attester.example.com"}, nil},
		"another":          {new(testAttester), nil},
	} {
		for _, method := range []transport.Method{transport.MethodPoP, transport.MethodDPoP} {
			t.Run(name+" "+string(method), func(t *testing.T) {
				r := newRig(t, transporttest.Policy{})
				c := r.client(t, func(cfg *client.Config) { cfg.Attester, cfg.Method = test.attester, method })
				got := c.Registration().AttestationSigningAlgs
				if strings.Join(got, " ") != strings.Join(test.want, " ") {
					t.Errorf("%q, want %q", got, test.want)
				}
				if document := registration(t, r, c); strings.Contains(document, "none") || strings.Contains(document, "HS256") || strings.Contains(document, "null") {
					t.Errorf("registration %s", document)
				}
			})
		}
	}
}

// noneKey claims not to sign at all.
type noneKey struct{ macKey }

func (noneKey) Algorithm() string { return "none" }

// TestRegistrationBySettledMethodC40: once the metadata is known, the method is
// the one that it has settled.
func TestRegistrationBySettledMethodC40(t *testing.T) {
	r := newRig(t, transporttest.Policy{Combined: true})
	c := r.client(t)
	want := strings.ReplaceAll(popRegistration, "ALG", "ES256")
	if got := registration(t, r, c); got != want {
		t.Errorf("before metadata is known: %s, want %s", got, want)
	}
	if _, err := c.Metadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := registration(t, r, c); got != combinedRegistration {
		t.Errorf("after: %s, want %s", got, combinedRegistration)
	}
	given := r.client(t, metadata(func(m *client.Metadata) { m.PoPMethods = []string{"dpop_combined"} }))
	if got := registration(t, r, given); got != combinedRegistration {
		t.Errorf("with metadata given: %s, want %s", got, combinedRegistration)
	}
}

// TestRegistrationIsTheCallersC40: a change of it has no effect.
func TestRegistrationIsTheCallersC40(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	before := registration(t, r, c)
	changed := c.Registration()
	changed.PoPMethods[0], changed.AttestationPoPSigningAlgs[0] = "none", "none"
	if after := registration(t, r, c); after != before {
		t.Errorf("%s, want %s", after, before)
	}
}
