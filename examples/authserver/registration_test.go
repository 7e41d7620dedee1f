// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/transport"
)

// A client that is registered as it describes itself is served.
func TestRegistrationOfClientC40(t *testing.T) {
	for _, method := range []transport.Method{"", transport.MethodPoP, transport.MethodDPoP} {
		for _, dpop := range []client.DPoP{client.DPoPOff, client.DPoPOwnKey, client.DPoPInstanceKey} {
			described := newNetwork(newFixture(t, nil)).client(func(cfg *client.Config) { cfg.Method, cfg.DPoP = method, dpop })
			registration := described.Registration()
			n := newNetwork(newFixture(t, func(cfg *authserver.Config) {
				cfg.Clients = []authserver.Client{{ID: clientID, Method: string(registration.TokenEndpointAuthMethod)}}
			}))
			token, err := n.client(func(cfg *client.Config) { cfg.Method, cfg.DPoP = method, dpop }).Token(t.Context())
			if err != nil {
				t.Errorf("method %q, DPoP %d, registered as %+v: %v", method, dpop, registration, err)
				continue
			}
			if bound := token.TokenType == "DPoP"; bound != registration.DPoPBoundAccessTokens {
				t.Errorf("method %q, DPoP %d: token_type %s, registered as %+v", method, dpop, token.TokenType, registration)
			}
			n.wantRequests(map[string]int{"/.well-known/oauth-authorization-server": 1, "/challenge": 1, "/token": 1})
		}
	}
}
