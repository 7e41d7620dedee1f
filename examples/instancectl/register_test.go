// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/transport"
)

func TestRegister(t *testing.T) {
	s := startServers(t, nil)
	combined := startServers(t, func(cfg *authserver.Config) { cfg.Clients[0].Method = authserver.MethodDPoP })
	for name, test := range map[string]struct {
		s        servers
		flags    []string
		method   transport.Method
		dpop     bool
		requests int // for metadata
	}{
		"auto":             {s, nil, transport.MethodPoP, false, 1},
		"PoP JWT":          {s, []string{"-method", "pop"}, transport.MethodPoP, false, 0},
		"PoP JWT and DPoP": {s, []string{"-method", "pop", "-dpop"}, transport.MethodPoP, true, 0},
		"combined":         {combined, []string{"-method", "dpop"}, transport.MethodDPoP, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir, before := t.TempDir(), test.s.Requests()
			args := append([]string{"register", "-store", "soft", "-keys", dir, "-issuer", test.s.Issuer, "-client-id", clientID, "-self", test.s.self}, test.flags...)
			if r := instancectl(t, args...); r.status != 1 || !strings.Contains(r.stderr, "no such key") {
				t.Errorf("without a key: status %d, %s", r.status, r.stderr)
			}
			if entries, err := os.ReadDir(dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".pem") }) {
				t.Errorf("a key was made: %v, %v", entries, err)
			}
			ok(t, "key", "create", "-store", "soft", "-keys", dir, "-name", client.DefaultKeyName(test.s.Issuer, clientID), "-alg", "ES384")
			var got client.Registration
			if err := json.Unmarshal([]byte(ok(t, args...).stdout), &got); err != nil {
				t.Fatal(err)
			}
			pop := test.method == transport.MethodPoP
			if got.TokenEndpointAuthMethod != test.method || got.DPoPBoundAccessTokens != test.dpop || slices.Equal(got.AttestationPoPSigningAlgs, []string{"ES384"}) != pop {
				t.Errorf("registration %+v", got)
			}
			if n := test.s.Requests() - before; n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
	for _, args := range [][]string{{}, {"-issuer", s.Issuer, "-client-id", clientID, "-self", s.self}} {
		if r := instancectl(t, append([]string{"register", "-store", "soft"}, args...)...); r.status != 2 {
			t.Errorf("%q: status %d", args, r.status)
		}
	}
}
