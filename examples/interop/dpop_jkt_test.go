// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
)

// The server binds the authorization code to the key that dpop_jkt names, in
// the browser's URL or in a pushed request, and takes the code from that key
// alone. A pushed request whose dpop_jkt is not the key of its proof is refused.
func TestOIDCProviderCodeBindingC47(t *testing.T) {
	other, err := keystore.Thumbprint(newAttester(t).jwk.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		config  client.Config
		push    bool
		jkt     string // "": the Client's own
		refused string // where
	}{
		"own key": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPOwnKey}, false, "", ""},
		"own key, pushed": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPOwnKey}, true, "", ""},
		"instance key": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPInstanceKey}, false, "", ""},
		"combined mode, pushed": {
			client.Config{ClientID: "abca-dpop-client", Method: transport.MethodDPoP}, true, "", ""},
		"another key": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPOwnKey}, false, other, token},
		"another key, pushed": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPOwnKey}, true, other, par},
		"another key, combined mode, pushed": {
			client.Config{ClientID: "abca-dpop-client", Method: transport.MethodDPoP}, true, other, par},
	} {
		t.Run(name, func(t *testing.T) {
			attester := newAttester(t)
			p := startProvider(t, current, attester.jwk)
			test.config.Store = softkey.New()
			c := configured(t, p, attester, test.config)
			server, err := c.Metadata(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			config := oauth2.Config{ClientID: test.config.ClientID, RedirectURL: "http://127.0.0.1/callback", Scopes: []string{"openid"}}
			if config.Endpoint, err = c.Endpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			jkt := test.jkt
			if jkt == "" {
				if jkt, err = c.DPoPThumbprint(t.Context()); err != nil || jkt == "" {
					t.Fatalf("thumbprint %q, %v", jkt, err)
				}
			}
			verifier := oauth2.GenerateVerifier()
			authorize := config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("dpop_jkt", jkt))
			if test.push {
				var answer struct {
					RequestURI string `json:"request_uri"`
					Error      string
				}
				status := http.StatusCreated
				if test.refused == par {
					status = http.StatusBadRequest
				}
				post(t, c.HTTPClient(), server.PushedAuthorizationRequestEndpoint, status, query(t, authorize), &answer)
				if test.refused == par {
					if answer.Error != "invalid_request" {
						t.Errorf("PAR: %q, want invalid_request", answer.Error)
					}
					return
				}
				authorize = server.AuthorizationEndpoint + "?" + url.Values{
					"client_id":   {config.ClientID},
					"request_uri": {answer.RequestURI},
				}.Encode()
			}

			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
			tok, err := config.Exchange(ctx, consent(t, authorize), oauth2.VerifierOption(verifier))
			if test.refused == token {
				var refused *oauth2.RetrieveError
				if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
					t.Errorf("%v, want invalid_grant", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tok.TokenType != "DPoP" {
				t.Errorf("token_type %s, want DPoP", tok.TokenType)
			}
		})
	}
}
