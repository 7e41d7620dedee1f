// SPDX-License-Identifier: Apache-2.0

package clienttest_test

import (
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
	"github.com/instancekey/instancekey/transport"
)

// TestGrants runs each grant, for bearer tokens and for DPoP-bound ones, at an ordinary
// resource and at one that wants the attestation.
func TestGrants(t *testing.T) {
	grants := map[string]struct {
		refreshable bool
		run         func(a *app) (*oauth2.Token, error)
	}{
		"client credentials": {false, func(a *app) (*oauth2.Token, error) { return a.client.Token(a.t.Context(), "read") }},
		"code":               {true, func(a *app) (*oauth2.Token, error) { return a.codeGrant(false) }},
		"pushed request":     {true, func(a *app) (*oauth2.Token, error) { return a.codeGrant(true) }},
		"device": {true, func(a *app) (*oauth2.Token, error) {
			asked, err := a.config.DeviceAuth(a.ctx)
			if err != nil {
				return nil, err
			}
			resp, err := http.Get(asked.VerificationURIComplete)
			if err != nil {
				return nil, err
			}
			resp.Body.Close()
			return a.config.DeviceAccessToken(a.ctx, asked)
		}},
	}
	for name, grant := range grants {
		for dpop, edit := range map[string]func(*client.Config){"bearer": func(*client.Config) {}, "DPoP": bound, "own key": func(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey }} {
			for _, attested := range []bool{false, true} {
				t.Run(name+"/"+dpop+map[bool]string{true: ", attested"}[attested], func(t *testing.T) {
					t.Parallel()
					a := newApp(t, clienttest.New(t, clienttest.Config{AttestedResource: attested}), edit)
					token, err := grant.run(a)
					if err != nil {
						t.Fatal(err)
					}
					if (token.RefreshToken != "") != grant.refreshable || !token.Valid() {
						t.Errorf("the token has a refresh token: %t, is valid: %t", token.RefreshToken != "", token.Valid())
					}
					if status := a.call(token); status != 200 {
						t.Errorf("status %d: %v", status, a.Resource.Requests())
					}
					got := a.Resource.Requests()[0]
					if (got.Header.Get(transport.HeaderAttestation) != "") != attested || got.Token.Scope != "read" || got.Path != "/resource/x" {
						t.Errorf("the resource got %+v", got)
					}
					if (got.Token.DPoPThumbprint != "") != (dpop != "bearer") {
						t.Errorf("the token is bound to %q", got.Token.DPoPThumbprint)
					}
					a.RevokeTokens()
					if status := a.call(token); status != 401 {
						t.Errorf("status %d with a token that was revoked", status)
					}
					if !grant.refreshable {
						return
					}
					next, err := a.client.Refresh(t.Context(), token.RefreshToken)
					if err != nil {
						t.Fatal(err)
					}
					if status := a.call(next); status != 200 || next.RefreshToken == token.RefreshToken {
						t.Errorf("status %d after a refresh", status)
					}
					_, err = a.client.Refresh(t.Context(), token.RefreshToken)
					a.wantCode(err, "invalid_grant")
				})
			}
		}
	}
}

// TestRefusals: what breaks a rule of a grant is refused.
func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		code string
		run  func(t *testing.T, a *app) error
	}{
		"another instance's refresh token": {"invalid_grant", func(t *testing.T, a *app) error {
			token, err := a.codeGrant(false)
			if err != nil {
				t.Fatal(err)
			}
			_, err = newApp(t, a.Services).client.Refresh(t.Context(), token.RefreshToken)
			return err
		}},
		"another instance's pushed request": {"invalid_grant", func(t *testing.T, a *app) error {
			verifier := oauth2.GenerateVerifier()
			u, err := url.Parse(a.config.AuthCodeURL("", oauth2.S256ChallengeOption(verifier)))
			if err != nil {
				t.Fatal(err)
			}
			back := a.browse(a.push(u.Query()))
			other := newApp(t, a.Services)
			_, err = other.config.Exchange(other.ctx, back.Get("code"), oauth2.VerifierOption(verifier))
			return err
		}},
		"another instance's device_code": {"invalid_grant", func(t *testing.T, a *app) error {
			asked, err := a.config.DeviceAuth(a.ctx)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.Get(asked.VerificationURIComplete)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			other := newApp(t, a.Services)
			_, err = other.config.DeviceAccessToken(other.ctx, asked)
			return err
		}},
		"all revoked": {"invalid_grant", func(t *testing.T, a *app) error {
			token, err := a.codeGrant(false)
			if err != nil {
				t.Fatal(err)
			}
			a.RevokeAll()
			_, err = a.client.Refresh(t.Context(), token.RefreshToken)
			return err
		}},
		"another verifier": {"invalid_grant", func(t *testing.T, a *app) error {
			back := a.browse(a.config.AuthCodeURL("", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
			_, err := a.config.Exchange(a.ctx, back.Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier()))
			return err
		}},
		"a code twice": {"invalid_grant", func(t *testing.T, a *app) error {
			verifier := oauth2.GenerateVerifier()
			back := a.browse(a.config.AuthCodeURL("", oauth2.S256ChallengeOption(verifier)))
			for range 2 {
				if _, err := a.config.Exchange(a.ctx, back.Get("code"), oauth2.VerifierOption(verifier)); err != nil {
					return err
				}
			}
			return nil
		}},
		"dpop_jkt of another key": {"invalid_grant", func(t *testing.T, a *app) error {
			_, err := a.codeGrant(false, oauth2.SetAuthURLParam("dpop_jkt", "another"))
			return err
		}},
		"unknown grant": {"unsupported_grant_type", func(t *testing.T, a *app) error {
			_, err := a.config.PasswordCredentialsToken(a.ctx, "user", "password")
			return err
		}},
		"user of the device says no": {"access_denied", func(t *testing.T, a *app) error {
			asked, err := a.config.DeviceAuth(a.ctx)
			if err != nil {
				t.Fatal(err)
			}
			a.Consent(false)
			resp, err := http.Get(asked.VerificationURIComplete)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			_, err = a.config.DeviceAccessToken(a.ctx, asked)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t, clienttest.New(t, clienttest.Config{}))
			a.wantCode(test.run(t, a), test.code)
		})
	}
	t.Run("user says no", func(t *testing.T) {
		a := newApp(t, clienttest.New(t, clienttest.Config{}))
		a.Consent(false)
		if back := a.browse(a.config.AuthCodeURL("s", oauth2.S256ChallengeOption("v"))); back.Get("error") != "access_denied" || back.Get("code") != "" {
			t.Errorf("the app got %v back", back)
		}
	})
	t.Run("no PKCE", func(t *testing.T) {
		a := newApp(t, clienttest.New(t, clienttest.Config{}))
		if back := a.browse(a.config.AuthCodeURL("s")); back.Get("error") != "invalid_request" || back.Get("code") != "" {
			t.Errorf("the app got %v back", back)
		}
		metadata, err := a.client.Metadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var refusal map[string]string
		a.post(metadata.PushedAuthorizationRequestEndpoint, url.Values{"response_type": {"code"}}, http.StatusBadRequest, &refusal)
		if refusal["error"] != "invalid_request" {
			t.Errorf("pushed: %v", refusal)
		}
	})
	t.Run("request_uri twice", func(t *testing.T) {
		a := newApp(t, clienttest.New(t, clienttest.Config{}))
		u, err := url.Parse(a.config.AuthCodeURL("", oauth2.S256ChallengeOption("v")))
		if err != nil {
			t.Fatal(err)
		}
		authURL := a.push(u.Query())
		a.browse(authURL)
		resp, err := http.Get(authURL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}
