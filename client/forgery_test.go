// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

// A forgery is an attestation with one thing changed.
type forgery struct {
	header, claims map[string]any // nil values remove
	key            jose.SigningKey
}

// forge makes an attestation for a key. What signs it does not matter to a
// client.
func forge(t testing.TB, key keystore.Key, now time.Time, f forgery) string {
	t.Helper()
	claims := map[string]any{
		"sub": "client",
		"iat": now.Unix(),
		"exp": now.Add(time.Hour).Unix(),
		"cnf": map[string]any{"jwk": jose.JSONWebKey{Key: key.Public()}},
	}
	maps.Copy(claims, f.claims)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	options := new(jose.SignerOptions).WithType("oauth-client-attestation+jwt")
	for name, value := range f.header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	if f.key.Key == nil {
		f.key = keystore.SigningKey(context.Background(), newKey(t, "ES256"))
	}
	signer, err := jose.NewSigner(f.key, options)
	if err != nil {
		t.Fatal(err)
	}
	attestation, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return attestation
}

// reheader replaces the header of a JWT, which breaks its signature.
func reheader(attestation, header string) string {
	_, rest, _ := strings.Cut(attestation, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

func jsonSerialization(attestation string) string {
	parts := strings.Split(attestation, ".")
	return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
}

// privateJWK adds the private half to a JWK of some EC key.
func privateJWK(t testing.TB) map[string]any {
	t.Helper()
	var jwk map[string]any
	// The key of RFC 7515, appendix A.3.
	if err := json.Unmarshal([]byte(`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}`), &jwk); err != nil {
		t.Fatal(err)
	}
	return jwk
}

func unsigned(attestation string) string {
	a := reheader(attestation, `{"alg":"none","typ":"oauth-client-attestation+jwt"}`)
	return a[:strings.LastIndexByte(a, '.')+1]
}

func payload(attestation string) string {
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(attestation, ".")[1])
	if err != nil {
		panic(err)
	}
	return string(b)
}

func repayload(attestation, payload string) string {
	parts := strings.Split(attestation, ".")
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(payload))
	return strings.Join(parts, ".")
}
