// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// Keycloak's endpoints in its access log, below the realm.
const (
	kcMetadata = "GET /.well-known/oauth-authorization-server 200"
	kcToken    = "POST /protocol/openid-connect/token 200"
	kcRefusal  = "POST /protocol/openid-connect/token 400"
	kcPAR      = "POST /protocol/openid-connect/ext/par/request 201"
	kcUserinfo = "GET /protocol/openid-connect/userinfo 200"
)

// TestKeycloak: everything that a device does, at a realm made by the recipe in
// keycloak/README.md.
func TestKeycloak(t *testing.T) {
	k := startKeycloak(t)
	for name, device := range map[string]func(*testing.T) tpmtest.Device{
		"simulator": func(t *testing.T) tpmtest.Device { return tpmtest.Simulator(t) },
		"swtpm":     func(t *testing.T) tpmtest.Device { return tpmtest.SWTPM(t, tpmtest.SWConfig{}) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newPublishedAttester(t)
			rig := &keycloakRig{keycloak: k, realm: name, issuer: k.newRealm(t, name, a.url), attester: a}
			rig.chip = tpmtest.Record(device(t))
			rig.store = openTPM(t, rig.chip)
			k.check(t, name, map[string]int{})
			t.Run("client credentials", rig.clientCredentials)
			t.Run("code, PKCE, PAR, refresh, userinfo", rig.code)
			t.Run("DPoP", rig.dpop)
			t.Run("refusals", rig.refusals)
			t.Run("profiles", rig.profiles)
			t.Run("keys", rig.keys)
			t.Run("clocks", rig.clocks)
			t.Run("attesters", rig.attesters)
			t.Run("attester's key is changed", rig.rotation)
		})
	}
}

// A keycloakRig is a realm, its attester and a TPM.
type keycloakRig struct {
	*keycloak
	realm, issuer string
	attester      *publishedAttester
	chip          *tpmtest.Recorder
	store         keystore.Store
}

// client returns a Client of this realm, with config's deviations from what the
// recipe says.
func (r *keycloakRig) client(t *testing.T, config client.Config) *client.Client {
	t.Helper()
	config.Issuer = cmp.Or(config.Issuer, r.issuer)
	config.ClientID = cmp.Or(config.ClientID, "meter")
	config.Profile = cmp.Or(config.Profile, transport.ProfileKeycloak)
	if config.Attester == nil {
		config.Attester = r.attester.SelfAttester
	}
	if config.Key == nil {
		config.Store = r.store
	}
	c, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// clientCredentials: two requests for the first token and one for each that
// follows, each with one signature of the TPM.
func (r *keycloakRig) clientCredentials(t *testing.T) {
	c := r.client(t, client.Config{})
	before := r.chip.Count(tpm2.TPMCCSign)
	for i, scope := range []string{"email", "profile", "address"} {
		tok, err := c.Token(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		if tok.TokenType != "Bearer" {
			t.Errorf("token_type %s", tok.TokenType)
		}
		want := map[string]int{kcToken: 1}
		if i == 0 {
			want[kcMetadata] = 1
		}
		r.check(t, r.realm, want)
	}
	if n := r.chip.Count(tpm2.TPMCCSign) - before; n != 3 {
		t.Errorf("the TPM signed %d times, want once for each of the 3 token requests", n)
	}

	// Keycloak calls a token active for its audience alone, which this client is
	// not; that it answers says that the client is authenticated here, too.
	tok, err := c.Token(t.Context(), "email")
	if err != nil {
		t.Fatal(err)
	}
	server, err := c.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	post(t, c.HTTPClient(), server.IntrospectionEndpoint, http.StatusOK, url.Values{"token": {tok.AccessToken}}, new(any))
	r.check(t, r.realm, map[string]int{"POST /protocol/openid-connect/token/introspect 200": 1})
}

// code: a pushed request, the code by way of the user's browser, a resource
// call, and refresh, which another instance of the client cannot do.
func (r *keycloakRig) code(t *testing.T) {
	c := r.client(t, client.Config{})
	tok, config := r.signIn(t, c, "meter")
	if tok.RefreshToken == "" {
		t.Fatal("no refresh token")
	}
	r.check(t, r.realm, withBrowser(map[string]int{kcMetadata: 1, kcPAR: 1, kcToken: 1}))

	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
	userinfo(t, config.Client(ctx, tok), r.issuer)
	r.check(t, r.realm, map[string]int{kcUserinfo: 1})

	other := r.client(t, client.Config{KeyName: "another-instance"})
	stolen := context.WithValue(t.Context(), oauth2.HTTPClient, other.HTTPClient())
	var refused *oauth2.RetrieveError
	_, err := config.TokenSource(stolen, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
		t.Errorf("refresh with another key: %v, want invalid_grant", err)
	}
	r.check(t, r.realm, map[string]int{kcMetadata: 1, kcRefusal: 1})

	renewed, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	if err != nil || renewed.AccessToken == tok.AccessToken {
		t.Fatalf("refresh: %v", err)
	}
	userinfo(t, config.Client(ctx, renewed), r.issuer)
	r.check(t, r.realm, map[string]int{kcToken: 1, kcUserinfo: 1})
}

// signIn runs the authorization code grant with PKCE and a pushed request.
func (r *keycloakRig) signIn(t *testing.T, c *client.Client, clientID string) (*oauth2.Token, *oauth2.Config) {
	t.Helper()
	config := &oauth2.Config{ClientID: clientID, RedirectURL: "http://127.0.0.1/callback", Scopes: []string{"openid"}}
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
	code := signIn(t, config.Endpoint.AuthURL+"?"+url.Values{"client_id": {clientID}, "request_uri": {answer.RequestURI}}.Encode())
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
	tok, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok, config
}

// withBrowser adds what the user's browser asks for.
func withBrowser(counts map[string]int) map[string]int {
	counts["GET /protocol/openid-connect/auth 302"]++
	counts["GET /login-actions/authenticate 200"]++
	counts["POST /login-actions/authenticate 302"]++
	return counts
}

// userinfo is a call of a resource with the user's token.
func userinfo(t *testing.T, hc *http.Client, issuer string) {
	t.Helper()
	resp, err := hc.Get(issuer + "/protocol/openid-connect/userinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var info struct {
		Username string `json:"preferred_username"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil || resp.StatusCode != http.StatusOK || info.Username != "alice" {
		t.Errorf("userinfo: %s, %+v, %v, %q", resp.Status, info, err, resp.Header.Get("WWW-Authenticate"))
	}
}

// dpop: the tokens are bound to the DPoP key, and userinfo wants its proof.
func (r *keycloakRig) dpop(t *testing.T) {
	for name, dpop := range map[string]client.DPoP{"own key": client.DPoPOwnKey, "instance key": client.DPoPInstanceKey} {
		t.Run(name, func(t *testing.T) {
			resource := r.issuer + "/protocol/openid-connect/userinfo"
			c := r.client(t, client.Config{
				ClientID: "meter-dpop", DPoP: dpop, Resources: []client.Resource{{Identifier: resource}},
			})
			tok, config := r.signIn(t, c, "meter-dpop")
			if tok.TokenType != "DPoP" {
				t.Errorf("token_type %s, want DPoP", tok.TokenType)
			}
			r.check(t, r.realm, withBrowser(map[string]int{kcMetadata: 1, kcPAR: 1, kcToken: 1}))
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
			userinfo(t, config.Client(ctx, tok), r.issuer)
			r.check(t, r.realm, map[string]int{kcUserinfo: 1,
				"GET /.well-known/oauth-protected-resource/protocol/openid-connect/userinfo 404": 1})
			for _, scope := range []string{"email", "profile"} {
				if tok, err := c.Token(t.Context(), scope); err != nil || tok.TokenType != "DPoP" {
					t.Errorf("client credentials: %v", err)
				}
			}
			r.check(t, r.realm, map[string]int{kcToken: 2})

			// Without the proof, the token is of no use.
			resp, err := (&http.Client{Transport: bearer(tok.AccessToken)}).Get(resource)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("userinfo without a proof: %s", resp.Status)
			}
			r.check(t, r.realm, map[string]int{"GET /protocol/openid-connect/userinfo 401": 1})
		})
	}
}
