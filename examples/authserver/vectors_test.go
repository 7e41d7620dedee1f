// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/keystore"
)

// TestDraftVectors: the JWTs printed in the draft authenticate at this server,
// and only there, then and as they are. They have a challenge of another
// server, so this one uses none.
func TestDraftVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Attester    jose.JSONWebKey `json:"attester_private_jwk"`
		AttesterJKT string          `json:"attester_jkt"`
		Instance    jose.JSONWebKey `json:"instance_private_jwk"`
		InstanceJKT string          `json:"instance_jkt"`
		Vectors     []struct {
			Name   string
			JWT    string
			Claims struct {
				Audience string `json:"aud"`
				IssuedAt int64  `json:"iat"`
			}
			VerifiedUnder string `json:"verified_under"`
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, key := range []struct {
		jwk  jose.JSONWebKey
		want string
	}{{file.Attester, file.AttesterJKT}, {file.Instance, file.InstanceJKT}} {
		if got, err := keystore.Thumbprint(key.jwk.Public().Key); err != nil || got != key.want {
			t.Errorf("thumbprint %s, %v, want %s", got, err, key.want)
		}
	}

	var now time.Time
	request := func(attestation, pop, audience string, trusted jose.JSONWebKey) int {
		server, err := authserver.New(authserver.Config{
			Issuer:       audience,
			Clients:      []authserver.Client{{ID: "https://client.example.com"}},
			AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{trusted.Public()}},
			Now:          func() time.Time { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, audience+"/token", strings.NewReader("grant_type=client_credentials"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("OAuth-Client-Attestation", attestation)
		r.Header.Set("OAuth-Client-Attestation-PoP", pop)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Code
	}
	changed := func(jwt string) string { // another signature, of the same form
		i := len(jwt) - 10
		return jwt[:i] + string(jwt[i]^1) + jwt[i+1:]
	}

	attestation, attestations, pops := "", 0, 0
	for _, v := range file.Vectors {
		switch v.VerifiedUnder {
		case "attester":
			attestation = v.JWT
			attestations++
		case "instance":
			pops++
			now = time.Unix(v.Claims.IssuedAt, 0)
			if code := request(attestation, v.JWT, v.Claims.Audience, file.Attester); code != http.StatusOK {
				t.Errorf("%s: status %d, want 200", v.Name, code)
			}
			stranger := file.Instance
			stranger.KeyID = file.Attester.KeyID
			for what, code := range map[string]int{
				"PoP changed":         request(attestation, changed(v.JWT), v.Claims.Audience, file.Attester),
				"attestation changed": request(changed(attestation), v.JWT, v.Claims.Audience, file.Attester),
				"other audience":      request(attestation, v.JWT, "https://other.example.com", file.Attester),
				"other attester":      request(attestation, v.JWT, v.Claims.Audience, stranger),
			} {
				if code != http.StatusBadRequest {
					t.Errorf("%s, %s: status %d, want 400", v.Name, what, code)
				}
			}
			now = now.Add(time.Minute)
			if code := request(attestation, v.JWT, v.Claims.Audience, file.Attester); code != http.StatusBadRequest {
				t.Errorf("%s, a minute later: status %d, want 400", v.Name, code)
			}
		}
	}
	if len(file.Vectors) != 3 || attestations != 1 || pops != 2 {
		t.Errorf("%d vectors: %d attestations, %d PoPs; want 3: 1, 2", len(file.Vectors), attestations, pops)
	}
}
