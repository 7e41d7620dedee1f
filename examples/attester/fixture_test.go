// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/attester"
)

const (
	attesterURL = "https://attester.example.com/abca"
	clientID    = "abca-client"
)

type object = map[string]any

// A fixture is one attester, its clock and its log, and an instance's key.
type fixture struct {
	t             testing.TB
	now           time.Time
	log           bytes.Buffer
	server        *attester.Server
	key, instance *ecdsa.PrivateKey
}

func newFixture(t testing.TB, configure func(*attester.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Unix(1_800_000_000, 0), key: newKey(t, elliptic.P256()), instance: newKey(t, elliptic.P256())}
	f.configure(configure)
	return f
}

// configure replaces the server by another one.
func (f *fixture) configure(change func(*attester.Config)) {
	f.t.Helper()
	cfg := attester.Config{
		URL:     attesterURL,
		Clients: []string{clientID, "other-client"},
		Key:     jose.JSONWebKey{Key: f.key, KeyID: "attester-1"},
		Logger:  slog.New(slog.NewJSONHandler(&f.log, nil)),
		Now:     func() time.Time { return f.now },
	}
	if change != nil {
		change(&cfg)
	}
	server, err := attester.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = server
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A request for an attestation: anything may be wrong with it.
type request struct {
	alg    jose.SignatureAlgorithm
	key    any
	jwk    any // header parameter jwk; nil leaves it out
	header object
	claims object
}

// request is right in every respect.
func (f *fixture) request() *request {
	f.t.Helper()
	return &request{
		alg:    jose.ES256,
		key:    f.instance,
		jwk:    jose.JSONWebKey{Key: &f.instance.PublicKey},
		header: object{"typ": "client-attestation-request+jwt"},
		claims: object{
			"iss": clientID, "aud": attesterURL, "iat": f.now.Unix(), "exp": f.now.Add(time.Minute).Unix(),
			"jti": rand.Text(), "challenge": f.fetchChallenge(),
		},
	}
}

func (r *request) compact(t testing.TB) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for name, value := range r.header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	if r.jwk != nil {
		options.WithHeader("jwk", r.jwk)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: r.alg, Key: r.key}, options)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jwt.Signed(signer).Claims(r.claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func (f *fixture) post(path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, attesterURL+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w
}

func (f *fixture) send(r *request) *httptest.ResponseRecorder {
	f.t.Helper()
	return f.post("/client-attestation", `{"request":"`+r.compact(f.t)+`"}`)
}

func (f *fixture) fetchChallenge() string {
	f.t.Helper()
	w := f.post("/challenge", "")
	answer := body(f.t, w)
	challenge, _ := answer["challenge"].(string)
	if w.Code != http.StatusOK || len(challenge) != 43 || answer["expires_in"] != 300.0 || w.Header().Get("Cache-Control") != "no-store" {
		f.t.Fatalf("challenge endpoint: %d %v", w.Code, answer)
	}
	return challenge
}

func body(t testing.TB, w *httptest.ResponseRecorder) object {
	t.Helper()
	answer := object{}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return answer
}

// wantAttestation checks that an attestation was issued, and returns it.
func (f *fixture) wantAttestation(w *httptest.ResponseRecorder) string {
	f.t.Helper()
	answer := body(f.t, w)
	attestation, _ := answer["client_attestation"].(string)
	if w.Code != http.StatusOK || attestation == "" || w.Header().Get("Cache-Control") != "no-store" {
		f.t.Fatalf("got %d %v, logged %s", w.Code, answer, f.log.String())
	}
	return attestation
}

// lastRecord is the newest record of the log.
func (f *fixture) lastRecord() object {
	f.t.Helper()
	lines := strings.Split(strings.TrimSpace(f.log.String()), "\n")
	record := object{}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &record); err != nil {
		f.t.Fatal(err)
	}
	return record
}

// wantRefusal checks the answer and what was logged about it.
func (f *fixture) wantRefusal(w *httptest.ResponseRecorder, status int, code, reason string) {
	f.t.Helper()
	answer := body(f.t, w)
	if w.Code != status || answer["error"] != code || len(answer) != 1 {
		f.t.Errorf("got %d %v, want %d %s", w.Code, answer, status, code)
	}
	record := f.lastRecord()
	if got, _ := record["reason"].(string); record["error"] != code || !strings.Contains(got, reason) {
		f.t.Errorf("logged %v, want %s because of %q", record, code, reason)
	}
	if regexp.MustCompile(`eyJ[\w-]+\.eyJ`).MatchString(f.log.String()) {
		f.t.Error("the log has a JWT in it")
	}
}

// open verifies an attestation with the attester's published key and returns
// its header and claims.
func (f *fixture) open(attestation string, algorithms ...jose.SignatureAlgorithm) (jose.Header, object) {
	f.t.Helper()
	var keys jose.JSONWebKeySet
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, httptest.NewRequest(http.MethodGet, attesterURL+"/jwks", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() {
		f.t.Fatalf("JWK Set %s: %v", w.Body, err)
	}
	parsed, err := jwt.ParseSigned(attestation, append(algorithms, jose.ES256))
	if err != nil {
		f.t.Fatal(err)
	}
	claims := object{}
	if err := parsed.Claims(keys.Keys[0].Key, &claims); err != nil {
		f.t.Fatal(err)
	}
	return parsed.Headers[0], claims
}
