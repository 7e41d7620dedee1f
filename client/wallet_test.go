// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestWalletAttestation: what walletConfig sends has, claim by claim, what HAIP
// 1.0 and the European wallets' specification ask, and nothing else.
func TestWalletAttestation(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	signing := newKey(t, "ES256")
	leaf, root := certify(t, signing.Public())
	cfg := walletConfig(r.store, signing, []*x509.Certificate{leaf, root}, r.clock.now())
	cfg.Issuer, cfg.Base, cfg.Clock = r.Issuer, inProcess{r}, r.clock.now
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Token(t.Context()); err == nil {
		t.Fatal("the server trusts any attester")
	}
	request := r.Requests(transporttest.Token)[0]
	attestation := request.Attestation()

	first, _, _ := strings.Cut(attestation, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	var header map[string]any
	if err != nil || json.Unmarshal(text, &header) != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(header)); !slices.Equal(got, []string{"alg", "kid", "typ", "x5c"}) || header["alg"] != "ES256" || header["typ"] != "oauth-client-attestation+jwt" {
		t.Errorf("header %v", header)
	}
	sent := header["x5c"].([]any)
	der, err := base64.StdEncoding.DecodeString(sent[0].(string))
	if err != nil || len(sent) != 1 || string(der) != string(leaf.Raw) {
		t.Errorf("x5c has %d certificates, want the leaf alone", len(sent))
	}

	token, err := jwt.ParseSigned(attestation, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := token.Claims(leaf.PublicKey, &claims); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"iss": "https://wallet-provider.example.com", "sub": "https://wallet.example.com",
		"wallet_name": "Example Wallet", "wallet_version": "2.1.0", "wallet_link": "https://wallet.example.com/about",
		"wallet_solution_certification_information": "https://wallet.example.com/certificate",
	} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
		delete(claims, name)
	}
	iat, exp := claims["iat"].(float64), claims["exp"].(float64)
	if now := float64(r.clock.now().Unix()); int64(iat)%3600 != 0 || int64(exp)%3600 != 0 || iat > now || exp <= now || exp-iat >= 24*3600 {
		t.Errorf("iat %.0f, exp %.0f", iat, exp)
	}
	status := claims["client_status"].(map[string]any)
	list := status["status"].(map[string]any)["status_list"].(map[string]any)
	if list["idx"] != 412.0 || list["uri"] != "https://wallet.example.com/status/1" || status["exp"].(float64) < exp {
		t.Errorf("client_status %v", status)
	}
	jwk := claims["cnf"].(map[string]any)["jwk"].(map[string]any)
	if got := slices.Sorted(maps.Keys(jwk)); !slices.Equal(got, []string{"alg", "crv", "kty", "x", "y"}) {
		t.Errorf("cnf.jwk has %v, want nothing that tells more of the instance", got)
	}
	for _, name := range []string{"iat", "exp", "client_status", "cnf"} {
		delete(claims, name)
	}
	if len(claims) != 0 {
		t.Errorf("claims that nobody asked for: %v", claims)
	}

	if request.PoP.Claims["iss"] != "https://wallet.example.com" || request.PoP.Claims["aud"] != r.Issuer {
		t.Errorf("PoP JWT %v", request.PoP.Claims)
	}
	proof, err := jwt.ParseSigned(request.Header.Get(transport.HeaderDPoP), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("DPoP beside the PoP JWT: %v", err)
	}
	dpop, _ := keystore.Thumbprint(proof.Headers[0].JSONWebKey.Key)
	instance, _ := keystore.Thumbprint(c.Key().Public())
	if dpop == instance {
		t.Error("the DPoP key is the Client Instance Key")
	}

	// Another issuer sees another key, and another attestation.
	other := cfg
	other.Issuer = "https://other.example.com"
	o, err := client.New(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if theirs, _ := keystore.Thumbprint(o.Key().Public()); theirs == instance || theirs == dpop {
		t.Error("two issuers see one key")
	}
}
