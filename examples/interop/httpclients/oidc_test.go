// SPDX-License-Identifier: Apache-2.0

package httpclients_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// openID makes the server an OpenID provider: it has discovery, keys, ID tokens and
// userinfo.
func openID(t *testing.T) *transporttest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "op"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	var s *transporttest.Server
	s = transporttest.New(t, transporttest.Config{
		Pages: map[string]http.Handler{
			"jwks": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "op", Algorithm: "ES256", Use: "sig"}}})
			}),
			"userinfo": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer access" || r.Header.Get("OAuth-Client-Attestation") != "" {
					t.Errorf("userinfo got %v", r.Header)
				}
				answer(w, map[string]any{"sub": "user", "email": "user@example.com"})
			}),
		},
		Policy: transporttest.Policy{
			Intercept: func(w http.ResponseWriter, r transporttest.Request) bool {
				if !strings.HasSuffix(r.Path, "/.well-known/openid-configuration") {
					return false
				}
				answer(w, map[string]any{
					"issuer": s.Issuer, "token_endpoint": s.Endpoint(transporttest.Token), "authorization_endpoint": s.Issuer + "/authorize",
					"jwks_uri": s.Endpoint("jwks"), "userinfo_endpoint": s.Endpoint("userinfo"), "id_token_signing_alg_values_supported": []string{"ES256"},
				})
				return true
			},
			Answer: func(r transporttest.Request) (int, map[string]any) {
				now := time.Now().Unix()
				token, err := jwt.Signed(signer).Claims(map[string]any{"iss": s.Issuer, "aud": s.ClientID, "sub": "user", "iat": now, "exp": now + 60}).Serialize()
				if err != nil {
					t.Error(err)
				}
				return http.StatusOK, map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 60, "id_token": token}
			},
		},
	})
	return s
}

// TestGoOIDC: discovery, the code, the ID token and userinfo, all over the Client.
func TestGoOIDC(t *testing.T) {
	s := openID(t)
	cfg := client.Config{Issuer: s.Issuer, ClientID: s.ClientID, Store: softkey.New(), Attester: attesterOf(s)}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := oidc.ClientContext(t.Context(), c.HTTPClient())
	provider, err := oidc.NewProvider(ctx, s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams // as Client.Endpoint has it; else x/oauth2 tries
	config := oauth2.Config{ClientID: s.ClientID, Endpoint: endpoint, Scopes: []string{oidc.ScopeOpenID}}
	token, err := config.Exchange(ctx, "the code")
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: s.ClientID}).Verify(ctx, raw)
	if err != nil || id.Subject != "user" {
		t.Fatalf("ID token: %v, %v", id, err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Email != "user@example.com" {
		t.Errorf("userinfo: %v, %v", info, err)
	}
	if n := s.Count(transporttest.Token); n != 1+s.Refused() {
		t.Errorf("%d token requests, and %d were refused for their challenge", n, s.Refused())
	}
}

// attesterOf asks the server's own attester.
func attesterOf(s *transporttest.Server) client.Attester {
	return attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
		return s.Attester.Attest(req.Key.Public()), nil
	})
}

type attesterFunc func(context.Context, client.AttestRequest) (string, error)

func (f attesterFunc) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	return f(ctx, req)
}
