// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
)

// readTestdata decodes a JSON file of testdata.
func readTestdata(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func parseJWK(t testing.TB, text string) crypto.PublicKey {
	t.Helper()
	var jwk jose.JSONWebKey
	if err := json.Unmarshal([]byte(text), &jwk); err != nil {
		t.Fatal(err)
	}
	return jwk.Key
}

// TestThumbprintRFC holds Thumbprint against the numbers in the RFCs.
func TestThumbprintRFC(t *testing.T) {
	for _, tt := range []struct{ name, jwk, want string }{
		{
			"RFC 7638 section 3.1 (RSA)",
			`{"kty":"RSA","e":"AQAB","alg":"RS256","kid":"2011-04-29","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		},
		{
			"RFC 8037 appendix A.3 (Ed25519)",
			`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
		},
		{
			"RFC 9449 section 6.1 (P-256)",
			`{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`,
			"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := keystore.Thumbprint(parseJWK(t, tt.jwk))
			if err != nil || got != tt.want {
				t.Errorf("Thumbprint = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestLeadingZeros: RFC 7518, sections 6.2.1.2 and 6.2.1.3. One random key in
// 128 has such a coordinate.
func TestLeadingZeros(t *testing.T) {
	var vectors []struct {
		Name       string
		PrivateJWK struct{ Crv, X, Y, D string } `json:"private_jwk"`
		Thumbprint string
	}
	readTestdata(t, "leading-zero-keys.json", &vectors)
	if len(vectors) != 8 {
		t.Fatalf("%d keys, want 8", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[v.PrivateJWK.Crv]
			d, err := base64.RawURLEncoding.DecodeString(v.PrivateJWK.D)
			if err != nil {
				t.Fatal(err)
			}
			// From the scalar: the coordinates come from the curve, not from
			// the JWK that they are compared with.
			private, err := ecdsa.ParseRawPrivateKey(curve, d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := keystore.Thumbprint(private.Public())
			if err != nil || got != v.Thumbprint {
				t.Errorf("Thumbprint = %q, %v, want %q", got, err, v.Thumbprint)
			}
			want := map[string]string{"kty": "EC", "crv": v.PrivateJWK.Crv, "x": v.PrivateJWK.X, "y": v.PrivateJWK.Y}
			members := jwkMembers(t, private.Public())
			if len(members) != len(want) {
				t.Errorf("JWK has the members %v, want %v", members, want)
			}
			for name, value := range want {
				if members[name] != value {
					t.Errorf("JWK member %s = %v, want %v", name, members[name], value)
				}
			}
			size := (curve.Params().BitSize + 7) / 8
			for _, name := range []string{"x", "y"} {
				octets, err := base64.RawURLEncoding.DecodeString(members[name])
				if err != nil || len(octets) != size {
					t.Errorf("%s has %d bytes, %v, want %d", name, len(octets), err, size)
				}
			}
		})
	}
}

// jwkMembers returns the JSON members of a public key's JWK.
func jwkMembers(t *testing.T, pub crypto.PublicKey) map[string]string {
	t.Helper()
	jwk, err := keystore.JWK(pub)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jwk)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	return members
}

func TestJWKRefuses(t *testing.T) {
	private := newECDSA(t, elliptic.P256())
	_, private25519, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		pub  crypto.PublicKey
	}{
		{"nil", nil},
		{"nil ECDSA", (*ecdsa.PublicKey)(nil)},
		{"nil RSA", (*rsa.PublicKey)(nil)},
		{"ECDSA without curve", &ecdsa.PublicKey{}},
		{"ECDSA as a value", private.PublicKey},
		{"P-224, which JOSE does not have", newECDSA(t, elliptic.P224()).Public()},
		{"secp256k1, which looks like P-256", secp256k1()},
		{"RSA without modulus", &rsa.PublicKey{}},
		{"short Ed25519", ed25519.PublicKey("short")},
		{"private ECDSA", private},
		{"private Ed25519", private25519},
		{"octets", []byte("secret")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := keystore.JWK(tt.pub)
			if err == nil || !strings.HasPrefix(err.Error(), "keystore: ") {
				t.Errorf("JWK error = %v, want one of package keystore", err)
			}
			if jkt, err := keystore.Thumbprint(tt.pub); err == nil {
				t.Errorf("Thumbprint = %q, want an error", jkt)
			}
		})
	}
}

// TestDraftExamples: the example JWTs of the draft verify under the keys that it
// names, and the keys have the thumbprints recorded with them.
func TestDraftExamples(t *testing.T) {
	var file struct {
		AttesterJWK jose.JSONWebKey `json:"attester_private_jwk"`
		AttesterJKT string          `json:"attester_jkt"`
		InstanceJWK jose.JSONWebKey `json:"instance_private_jwk"`
		InstanceJKT string          `json:"instance_jkt"`
		Vectors     []struct {
			Name, JWT     string
			VerifiedUnder string `json:"verified_under"`
			Header        struct{ Typ, Alg string }
			Claims        map[string]any
		}
	}
	readTestdata(t, "draft-examples.json", &file)
	keys := map[string]crypto.PublicKey{
		"attester": file.AttesterJWK.Public().Key,
		"instance": file.InstanceJWK.Public().Key,
	}
	for name, want := range map[string]string{"attester": file.AttesterJKT, "instance": file.InstanceJKT} {
		got, err := keystore.Thumbprint(keys[name])
		if err != nil || got != want {
			t.Errorf("thumbprint of the %s = %q, %v, want %q", name, got, err, want)
		}
	}

	verified := 0
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			jws, err := jose.ParseSignedCompact(v.JWT, []jose.SignatureAlgorithm{jose.ES256})
			if err != nil {
				t.Fatal(err)
			}
			payload, err := jws.Verify(keys[v.VerifiedUnder])
			if err != nil {
				t.Fatalf("under the key of the %s: %v", v.VerifiedUnder, err)
			}
			for name, key := range keys {
				if _, err := jws.Verify(key); name != v.VerifiedUnder && err == nil {
					t.Errorf("verifies under the key of the %s too", name)
				}
			}
			if typ := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; typ != v.Header.Typ {
				t.Errorf("typ = %v, want %v", typ, v.Header.Typ)
			}
			var claims struct {
				Cnf *struct {
					JWK jose.JSONWebKey `json:"jwk"`
				}
			}
			if err := json.Unmarshal(payload, &claims); err != nil {
				t.Fatal(err)
			}
			if isAttestation := v.VerifiedUnder == "attester"; isAttestation != (claims.Cnf != nil) {
				t.Errorf("cnf = %v in a JWT of the %s", claims.Cnf, v.VerifiedUnder)
			}
			if claims.Cnf != nil {
				if jkt, err := keystore.Thumbprint(claims.Cnf.JWK.Key); err != nil || jkt != file.InstanceJKT {
					t.Errorf("cnf names the key %q, %v, want the instance's %q", jkt, err, file.InstanceJKT)
				}
			}
			verified++
		})
	}
	if verified != 3 {
		t.Errorf("%d JWTs verified, want 3", verified)
	}
}
