// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

// FuzzMetadata: what a server publishes is used only if it is the issuer's own
// and leads to https places.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(document(issuerURL, nil)))
	f.Add([]byte(document(issuerURL, map[string]any{"token_endpoint_auth_methods_supported": []string{pop, combined}, "revocation_endpoint": "https://r.example.com/?a#b"})))
	f.Add([]byte(document(issuerURL+"/", nil)))
	f.Add([]byte(`{"issuer":"https://as.example.com","issuer":"https://other.example.com","token_endpoint":"https://as.example.com/token"}`))
	f.Add([]byte(`{"issuer":"https://as.example.com","token_endpoint":"http://as.example.com/token"}`))
	f.Add([]byte(`{"issuer":"https://as.example.com","token_endpoint":"https://as.example.com/\u0000"}`))
	f.Add([]byte("\xff\xfe{}"))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, content []byte) {
		d := newDiscoverer(t, issuerURL)
		d.site.set(wellKnown, text(string(content)))
		endpoint, err := d.Endpoint(t.Context())
		if err != nil {
			if !errors.Is(err, client.ErrMetadata) {
				t.Fatalf("error %v, want ErrMetadata", err)
			}
			return
		}
		var document map[string]any
		if err := json.Unmarshal(content, &document); err != nil || document["issuer"] != issuerURL {
			t.Fatalf("metadata of issuer %v was used (%v)", document["issuer"], err)
		}
		for _, raw := range []string{endpoint.TokenURL, endpoint.AuthURL, endpoint.DeviceAuthURL} {
			u, err := url.Parse(raw)
			if raw != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(raw, "#")) {
				t.Fatalf("endpoint %q was taken", raw)
			}
		}
		if endpoint.TokenURL == "" || d.store.signed.Load() != 0 {
			t.Fatalf("endpoints %+v after %d signatures", endpoint, d.store.signed.Load())
		}
	})
}

var compact = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$`)

// FuzzAttestation: whatever an attester gives, only a live attestation for this
// client and key is sent. An empty raw is made of header and payload.
func FuzzAttestation(f *testing.F) {
	key := newKey(f, "ES256")
	good := forge(f, key, testNow, forgery{})
	const header = `{"alg":"ES256","typ":"oauth-client-attestation+jwt"}`
	for _, raw := range []string{good, good + "\n", unsigned(good), jsonSerialization(good), forge(f, newKey(f, "ES384"), testNow, forgery{}), ".."} {
		f.Add(raw, "", "")
	}
	f.Add("", header, payload(good))
	f.Add("", `{"alg":"HS256","typ":"oauth-client-attestation+jwt","crit":["b64"],"b64":false}`, payload(good))
	f.Add("", header, `{"sub":"client","exp":1e18,"cnf":null}`)
	f.Add("", header, strings.Replace(payload(good), `"exp":`, `"exp":-`, 1))
	f.Add("", header, strings.Replace(payload(good), `"kty":`, `"d":"AA","kty":`, 1))
	ours, err := json.Marshal(jose.JSONWebKey{Key: key.Public()})
	if err != nil {
		f.Fatal(err)
	}
	var jwk map[string]any
	if err := json.Unmarshal(ours, &jwk); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw, header, payload string) {
		if raw == "" {
			encode := base64.RawURLEncoding.EncodeToString
			raw = encode([]byte(header)) + "." + encode([]byte(payload)) + ".AAAA"
		}
		var arrived []string
		network := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived = append(arrived, r.Header.Values(transport.HeaderAttestation)...)
			w.WriteHeader(http.StatusTeapot)
		})
		c, err := client.New(t.Context(), client.Config{
			Issuer: issuerURL, ClientID: "client", Key: key, Base: inProcess{network}, Clock: newTestClock().now,
			Attester: &testAttester{attest: func(context.Context, client.AttestRequest, int) (string, error) { return raw, nil }},
			Metadata: &client.Metadata{Issuer: issuerURL, TokenEndpoint: issuerURL + "/token"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Token(t.Context())
		if errors.Is(err, client.ErrInvalidAttestation) {
			if len(arrived) != 0 {
				t.Fatal("an attestation was sent and is said to be invalid")
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("error has a newline: %q", err)
			}
			return
		}
		if len(arrived) != 1 || arrived[0] != raw || !compact.MatchString(raw) {
			t.Fatalf("%q arrived, error %v", arrived, err)
		}
		// A second opinion on what was sent.
		content, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Subject      any `json:"sub"`
			Expiry       any `json:"exp"`
			Confirmation struct {
				JWK map[string]any `json:"jwk"`
			} `json:"cnf"`
		}
		if err := json.Unmarshal(content, &claims); err != nil {
			t.Fatal(err)
		}
		exp, _ := claims.Expiry.(float64)
		if claims.Subject != "client" || exp < float64(testNow.Unix()+1) {
			t.Fatalf("sub %v, exp %v", claims.Subject, claims.Expiry)
		}
		for _, member := range []string{"kty", "crv", "x", "y"} {
			if claims.Confirmation.JWK[member] != jwk[member] {
				t.Fatalf("cnf.jwk is %v", claims.Confirmation.JWK)
			}
		}
		if claims.Confirmation.JWK["d"] != nil {
			t.Fatal("cnf.jwk is a private key")
		}
	})
}

// FuzzAttesterAnswer: no answer of an attester does more harm than an error.
func FuzzAttesterAnswer(f *testing.F) {
	f.Add(200, []byte(`{"challenge":"c","client_attestation":"a"}`))
	f.Add(200, []byte(`{"challenge":null}`))
	f.Add(403, []byte(`{"error":"policy_violation"}`))
	f.Add(403, []byte(`<html>`))
	f.Add(511, []byte(`{"error":"policy_violation"}`))
	f.Add(503, []byte(`{"error":["a"]}`))
	f.Add(400, []byte(`{`))
	key := newKey(f, "ES256")
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return // net/http's own
		}
		network := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})
		h := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{network}}}
		_, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key, Clock: time.Now})
		if err == nil && status != 200 {
			t.Fatalf("status %d is no error", status)
		}
		if err != nil && (len(err.Error()) > 1500 || strings.ContainsAny(err.Error(), "\r\n")) {
			t.Fatalf("error %.100q has %d bytes", err, len(err.Error()))
		}
		var word map[string]any
		_ = json.Unmarshal(body, &word) // nil if it is no object
		code, _ := word["error"].(string)
		if errors.Is(err, client.ErrAttestationRefused) && (status != 403 || code == "") {
			t.Fatalf("status %d, %.100q: %v", status, body, err)
		}
		if err != nil && code == "" && !errors.Is(err, client.ErrAttesterUnavailable) && status != 200 {
			t.Fatalf("status %d, %.100q: %v, want ErrAttesterUnavailable", status, body, err)
		}
	})
}

// FuzzStoredToken: no file makes ReadStoredToken give half a token.
func FuzzStoredToken(f *testing.F) {
	f.Add([]byte(`{"issuer":"i","client_id":"c","jkt":"t","token":{"access_token":"a","expiry":"2026-11-22T12:00:00Z"}}`))
	f.Add([]byte(`{"token":null}`))
	f.Add([]byte(`{"token":{"expiry":"x"}}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		stored, err := client.ReadStoredToken(file)
		if (err == nil) != (stored.Token != nil) {
			t.Fatalf("token %t, error %v", stored.Token != nil, err)
		}
		if err != nil {
			return
		}
		if err := stored.Write(file); err != nil { // what was read can be written, and read again
			t.Fatal(err)
		}
		again, err := client.ReadStoredToken(file)
		if err != nil || again.Token.AccessToken != stored.Token.AccessToken || again.Token.RefreshToken != stored.Token.RefreshToken || again.Thumbprint != stored.Thumbprint {
			t.Fatalf("read again: %v", err)
		}
	})
}
