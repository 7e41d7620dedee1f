// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestOtherMechanismsC42: profiles may define more mechanisms than the draft's
// two. A server that offers no other is refused, one that offers them beside
// ours is served by ours.
func TestOtherMechanismsC42(t *testing.T) {
	const (
		popJWT, dpop = "attestation_pop_jwt", "dpop_combined"
		tls          = "attest_jwt_client_auth_tls" // made up: a method of another specification,
		channel      = "tls_exporter"               // and a mechanism
	)
	none := []string(nil)
	for _, test := range []struct {
		methods, popMethods []string
		want                map[transport.Method]string // what comes of each configured method
	}{
		{none, []string{channel}, map[transport.Method]string{"": "error", transport.MethodPoP: "error", transport.MethodDPoP: "error"}},
		{[]string{}, []string{channel, "another"}, map[transport.Method]string{"": "error", transport.MethodPoP: "error"}},
		{none, []string{"ATTESTATION_POP_JWT"}, map[transport.Method]string{"": "error", transport.MethodPoP: "error"}},
		{[]string{tls}, none, map[transport.Method]string{"": "error", transport.MethodPoP: "error", transport.MethodDPoP: "error"}},
		{[]string{tls}, []string{channel}, map[transport.Method]string{"": "error", transport.MethodPoP: "error"}},
		{[]string{tls}, []string{channel, "none"}, map[transport.Method]string{"": "error", transport.MethodPoP: "error"}},

		{none, []string{channel, popJWT}, map[transport.Method]string{"": pop, transport.MethodPoP: pop, transport.MethodDPoP: "error"}},
		{none, []string{channel, dpop}, map[transport.Method]string{"": combined, transport.MethodPoP: "error", transport.MethodDPoP: combined}},
		{[]string{tls, pop}, none, map[transport.Method]string{"": pop}},
		{[]string{tls, combined}, []string{channel}, map[transport.Method]string{"": combined, transport.MethodPoP: "error"}},
		{[]string{pop}, []string{channel}, map[transport.Method]string{"": pop, transport.MethodPoP: pop}},
		// Nothing is demanded as a signal, and nothing said of authentication.
		{none, []string{channel, "none"}, map[transport.Method]string{"": pop, transport.MethodDPoP: combined}},
	} {
		for configured, want := range test.want {
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
				if want != "error" {
					return
				}
				_, err := c.Endpoint(t.Context())
				for _, offered := range append(test.methods, test.popMethods...) {
					if !errors.Is(err, client.ErrMetadata) || !strings.Contains(err.Error(), fmt.Sprintf("%q", offered)) {
						t.Errorf("error %v, want ErrMetadata that names %q", err, offered)
					}
				}
			})
		}
	}
}

func TestNewRefusesOtherMechanismsC42(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cfg := r.config()
	metadata(func(m *client.Metadata) { m.PoPMethods = []string{"tls_exporter"} })(&cfg)
	if _, err := client.New(t.Context(), cfg); !errors.Is(err, client.ErrMetadata) || r.store.creates.Load() != 0 {
		t.Errorf("error %v, %d keys created, want ErrMetadata and none", err, r.store.creates.Load())
	}
}
