// SPDX-License-Identifier: Apache-2.0

package clienttest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/client/clienttest"
)

// TestStrictAttester: what is wrong in one thing gets no attestation.
func TestStrictAttester(t *testing.T) {
	s := clienttest.New(t, clienttest.Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) (int, map[string]any) {
		resp, err := http.Post(s.Attester.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer := make(map[string]any)
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		claim string
		value any
		typ   string
		code  string
	}{
		"nothing":           {"more", 1, "", ""},
		"another audience":  {"aud", "https://attester.example.com", "", "invalid_pop"},
		"no jti":            {"jti", "", "", "invalid_pop"},
		"expired":           {"exp", now - 1, "", "invalid_pop"},
		"of tomorrow":       {"iat", now + 86400, "", "invalid_pop"},
		"another client_id": {"iss", "x", "", "policy_violation"},
		"own challenge":     {"challenge", "mine", "", "invalid_challenge"},
		"another typ":       {"more", 1, "JWT", "invalid_pop"},
	} {
		t.Run(name, func(t *testing.T) {
			_, given := post("/challenge", "")
			claims := map[string]any{
				"iss": s.Server.ClientID, "aud": s.Attester.URL, "jti": "id", "iat": now, "exp": now + 300, "challenge": given["challenge"],
			}
			claims[test.claim] = test.value
			if test.typ == "" {
				test.typ = "client-attestation-request+jwt"
			}
			options := (&jose.SignerOptions{EmbedJWK: true}).WithType(jose.ContentType(test.typ))
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
			if err != nil {
				t.Fatal(err)
			}
			request, err := jwt.Signed(signer).Claims(claims).Serialize()
			if err != nil {
				t.Fatal(err)
			}
			body := `{"request":"` + request + `"}`
			status, answer := post("/client-attestation", body)
			if code, _ := answer["error"].(string); code != test.code || (status == 200) != (test.code == "") {
				t.Errorf("status %d, %v, want %q", status, answer, test.code)
			}
			if test.code == "" { // a challenge is good once
				if _, answer := post("/client-attestation", body); answer["error"] != "invalid_challenge" {
					t.Errorf("sent again: %v", answer)
				}
			}
		})
	}
	if n := s.Attester.Attested(); n != 1 {
		t.Errorf("%d attestations, want 1", n)
	}
}

// TestAnothersToken: a token is of no use with another instance's attestation.
func TestAnothersToken(t *testing.T) {
	s := clienttest.New(t, clienttest.Config{AttestedResource: true})
	a, b := newApp(t, s), newApp(t, s)
	token, err := a.client.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if mine, anothers := a.call(token), b.call(token); mine != 200 || anothers != 401 {
		t.Errorf("statuses %d and %d, want 200 and 401", mine, anothers)
	}
}
