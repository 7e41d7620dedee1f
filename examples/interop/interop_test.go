// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
)

const (
	metadata   = "GET /.well-known/oauth-authorization-server"
	challenge  = "POST /challenge"
	token      = "POST /token"
	introspect = "POST /token/introspection"
	par        = "POST /request"
)

// A token costs three requests the first time and one from then on, whatever
// TPM the key is in, and the server knows the token as this client's.
func TestOIDCProvider(t *testing.T) {
	for name, device := range map[string]func(*testing.T) tpmtest.Device{
		"simulator": func(t *testing.T) tpmtest.Device { return tpmtest.Simulator(t) },
		"swtpm":     func(t *testing.T) tpmtest.Device { return tpmtest.SWTPM(t, tpmtest.SWConfig{}) },
	} {
		t.Run(name, func(t *testing.T) {
			attester := newAttester(t)
			p := startProvider(t, current, attester.jwk)
			chip := tpmtest.Record(device(t))
			c := newClient(t, p, attester, openTPM(t, chip))

			if _, err := c.Token(t.Context(), "read"); err != nil {
				t.Fatalf("cold: %v", err)
			}
			p.check(t, map[string]int{metadata: 1, challenge: 1, token: 1})

			tok, err := c.Token(t.Context(), "write")
			if err != nil {
				t.Fatalf("warm: %v", err)
			}
			p.check(t, map[string]int{metadata: 1, challenge: 1, token: 2})

			var info struct {
				Active   bool
				ClientID string `json:"client_id"`
				Scope    string
			}
			server, err := c.Metadata(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			post(t, c.HTTPClient(), server.IntrospectionEndpoint, http.StatusOK,
				url.Values{"token": {tok.AccessToken}}, &info)
			if !info.Active || info.ClientID != "abca-client" || info.Scope != "write" {
				t.Errorf("the server says of the token: %+v", info)
			}
			p.check(t, map[string]int{metadata: 1, challenge: 1, token: 2, introspect: 1})

			if n := chip.Count(tpm2.TPMCCSign); n != 3 {
				t.Errorf("the TPM signed %d times, want once for each of the 3 authenticated requests", n)
			}
		})
	}
}

// The grants of golang.org/x/oauth2 run over the Client's HTTP client: a pushed
// authorization request, the authorization code grant, and refresh. The
// refresh token is of no use with another instance's key.
func TestOIDCProviderCodeGrant(t *testing.T) {
	attester := newAttester(t)
	p := startProvider(t, current, attester.jwk)
	c := newClient(t, p, attester, openTPM(t, tpmtest.Simulator(t)))
	config := oauth2.Config{ClientID: "abca-client", RedirectURL: "http://127.0.0.1/callback", Scopes: []string{"openid"}}
	var err error
	if config.Endpoint, err = c.Endpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	server, err := c.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier := oauth2.GenerateVerifier()

	pushed := query(t, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	var answer struct {
		RequestURI string `json:"request_uri"`
	}
	post(t, c.HTTPClient(), server.PushedAuthorizationRequestEndpoint, http.StatusCreated, pushed, &answer)
	code := consent(t, config.Endpoint.AuthURL+"?"+url.Values{
		"client_id":   {config.ClientID},
		"request_uri": {answer.RequestURI},
	}.Encode())

	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
	tok, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if tok.RefreshToken == "" {
		t.Fatal("no refresh token")
	}

	other := newClient(t, p, attester, softkey.New())
	stolen := context.WithValue(t.Context(), oauth2.HTTPClient, other.HTTPClient())
	var refused *oauth2.RetrieveError
	_, err = config.TokenSource(stolen, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
		t.Errorf("refresh with another key: %v, want invalid_grant", err)
	}

	if _, err = config.TokenSource(ctx, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token(); err != nil {
		t.Errorf("refresh: %v", err)
	}
	got := p.Requests(t)
	want := map[string]int{
		metadata:  2, // each client's
		challenge: 2,
		par:       1,
		token:     3, // code, refused refresh, refresh
	}
	for request, n := range want {
		if got[request] != n {
			t.Errorf("%s: %d times, want %d", request, got[request], n)
		}
	}
}

// Every way to prove possession of the key and to bind tokens costs the same:
// three requests the first time and one from then on.
func TestOIDCProviderMethods(t *testing.T) {
	for name, test := range map[string]struct {
		config    client.Config
		tokenType string
	}{
		"PoP JWT": {client.Config{ClientID: "abca-client", Method: transport.MethodPoP}, "Bearer"},
		"PoP JWT, DPoP with an own key": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPOwnKey}, "DPoP"},
		"PoP JWT, DPoP with the instance key": {
			client.Config{ClientID: "abca-client", DPoP: client.DPoPInstanceKey}, "DPoP"},
		"combined mode": {client.Config{ClientID: "abca-dpop-client", Method: transport.MethodDPoP}, "DPoP"},
	} {
		t.Run(name, func(t *testing.T) {
			attester := newAttester(t)
			p := startProvider(t, current, attester.jwk)
			test.config.Store = softkey.New()
			c := configured(t, p, attester, test.config)
			for i, scope := range []string{"read", "write"} {
				tok, err := c.Token(t.Context(), scope)
				if err != nil {
					t.Fatal(err)
				}
				if tok.TokenType != test.tokenType {
					t.Errorf("token_type %s, want %s", tok.TokenType, test.tokenType)
				}
				p.check(t, map[string]int{metadata: 1, challenge: 1, token: i + 1})
			}
		})
	}
}

// Older versions of the server speak older drafts. The claims of OpenID4VCI 1.0,
// which are those of -07 and more, pass at all of them; those of the current
// draft do where "iss" was no longer required.
func TestOIDCProviderOlder(t *testing.T) {
	for _, test := range []struct {
		version string
		profile transport.Profile
		refused bool
	}{
		{current, transport.ProfileDraft12, false},
		{current, transport.ProfileOpenID4VCI, false},
		{"9.12.2", transport.ProfileDraft12, false},
		{"9.12.2", transport.ProfileDraft10, false},
		{"9.12.2", transport.ProfileOpenID4VCI, false},
		{"9.8.6", transport.ProfileOpenID4VCI, false},
		{"9.8.6", transport.ProfileDraft12, true},
	} {
		t.Run(test.version+"/"+string(test.profile), func(t *testing.T) {
			attester := newAttester(t)
			if test.profile == transport.ProfileOpenID4VCI {
				attester.Claims = map[string]any{"iss": "abca-client"}
			}
			p := startProvider(t, test.version, attester.jwk)
			c := configured(t, p, attester, client.Config{ClientID: "abca-client", Store: softkey.New(), Profile: test.profile})
			for i, scope := range []string{"read", "write"} {
				_, err := c.Token(t.Context(), scope)
				if test.refused {
					var refusal *transport.Error
					if !errors.As(err, &refusal) || refusal.Code != "invalid_client" {
						t.Fatalf("%v, want invalid_client", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				p.check(t, map[string]int{metadata: 1, challenge: 1, token: i + 1})
			}
		})
	}
}
