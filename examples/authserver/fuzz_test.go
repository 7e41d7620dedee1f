// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/internal/authchallenge"
)

// FuzzTokenRequest: whatever is sent, the answer is a refusal with a code of
// its own, and never a token: no seed is good enough for one, and the fuzzer
// cannot sign.
func FuzzTokenRequest(f *testing.F) {
	server := newFixture(f, func(cfg *authserver.Config) { cfg.DPoPNonces = true })
	good := server.withDPoP(server.pop(), server.dpop)
	good.pop.claims["aud"] = "https://other.example.com"
	attestation, pop, proof := good.attestation.compact(f), good.pop.compact(f), good.dpop.compact(f)
	f.Add(attestation, pop, proof, good.form.Encode())
	f.Add(attestation, "", proof, good.form.Encode())
	f.Add(attestation, pop, "", "grant_type=client_credentials;x")
	f.Add("eyJ0eXAiOiJvYXV0aC1jbGllbnQtYXR0ZXN0YXRpb24rand0IiwiYWxnIjoibm9uZSJ9..", "..", "\x00", "=&&%")
	f.Fuzz(func(t *testing.T, attestation, pop, proof, form string) {
		r := httptest.NewRequest(http.MethodPost, issuer+"/token", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for name, value := range map[string]string{
			"OAuth-Client-Attestation": attestation, "OAuth-Client-Attestation-PoP": pop, "DPoP": proof,
		} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		server.server.ServeHTTP(w, r)
		answer := body(t, w)
		code, _ := answer["error"].(string)
		if w.Code < 400 || w.Code >= 500 || code == "" || len(answer) != 1 {
			t.Fatalf("%d %v", w.Code, answer)
		}
	})
}

// FuzzResourceRequest: whatever is sent to the resource, the answer is a refusal
// under a scheme that it knows. The seeds have a good access token and a PoP JWT
// for another audience.
func FuzzResourceRequest(f *testing.F) {
	server := newResourceFixture(f, nil)
	good := server.atResource(server.tokenCall("dpop"))
	good.pop.claims["aud"] = "https://other.example.com"
	attestation, pop, proof := good.attestation.compact(f), good.pop.compact(f), good.dpop.compact(f)
	f.Add(good.headers.Get("Authorization"), attestation, pop, proof)
	f.Add("dpop  x", attestation, pop, "")
	f.Add("Bearer", "", "..", "\x00")
	f.Add("", attestation, "", proof)
	f.Fuzz(func(t *testing.T, authorization, attestation, pop, proof string) {
		r := httptest.NewRequest(http.MethodGet, resourceID, nil)
		for name, value := range map[string]string{
			"Authorization": authorization, "OAuth-Client-Attestation": attestation, "OAuth-Client-Attestation-PoP": pop, "DPoP": proof,
		} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		server.server.ServeHTTP(w, r)
		challenges := authchallenge.Parse(w.Header())
		if w.Code != http.StatusUnauthorized || len(challenges) == 0 || challenges[0].Scheme != "Bearer" && challenges[0].Scheme != "DPoP" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
	})
}
