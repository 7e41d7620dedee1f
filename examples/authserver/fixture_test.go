// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/keystore"
)

const (
	issuer   = "https://as.example.com"
	clientID = "abca-client"
	dpopID   = "combined-client" // registered for the combined mode
)

type object = map[string]any

// A fixture is one server, its clock and its log, and the keys of those who
// talk to it.
type fixture struct {
	t                        testing.TB
	now                      time.Time
	log                      bytes.Buffer
	server                   *authserver.Server
	attester, instance, dpop *ecdsa.PrivateKey
}

// newFixture makes a server with a challenge endpoint, refresh tokens and one
// client for each method, changed by configure.
func newFixture(t testing.TB, configure func(*authserver.Config)) *fixture {
	t.Helper()
	f := &fixture{
		t: t, now: time.Unix(1_800_000_000, 0),
		attester: newKey(t, elliptic.P256()), instance: newKey(t, elliptic.P256()), dpop: newKey(t, elliptic.P256()),
	}
	cfg := authserver.Config{
		Issuer: issuer,
		Clients: []authserver.Client{
			{ID: clientID, Scopes: []string{"read", "write"}},
			{ID: dpopID, Method: authserver.MethodDPoP},
		},
		AttesterKeys:  jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &f.attester.PublicKey, KeyID: "attester-1"}}},
		Challenges:    &authserver.ChallengeConfig{Endpoint: true},
		RefreshTokens: true,
		Logger:        slog.New(slog.NewJSONHandler(&f.log, nil)),
		Now:           func() time.Time { return f.now },
	}
	if configure != nil {
		configure(&cfg)
	}
	server, err := authserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.server = server
	return f
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func thumbprint(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	jkt, err := keystore.Thumbprint(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return jkt
}

// publicJWK is the key as a JSON object that tests can add members to.
func publicJWK(t testing.TB, key *ecdsa.PrivateKey) object {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKey{Key: &key.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	jwk := object{}
	if err := json.Unmarshal(data, &jwk); err != nil {
		t.Fatal(err)
	}
	return jwk
}

// A token is a JWT to be signed: anything may be wrong with it. It is signed
// by hand, because go-jose refuses to make most of what must be refused.
type token struct {
	header, claims object
	rawClaims      string // instead of claims
	key            *ecdsa.PrivateKey
}

func (j *token) compact(t testing.TB) string {
	t.Helper()
	header, err := json.Marshal(j.header)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(j.claims)
	if err != nil {
		t.Fatal(err)
	}
	if j.rawClaims != "" {
		payload = []byte(j.rawClaims)
	}
	enc := base64.RawURLEncoding
	input := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	size := (j.key.Curve.Params().BitSize + 7) / 8
	digest := sha256.Sum256([]byte(input))
	hash := digest[:]
	if size == 48 {
		long := sha512.Sum384([]byte(input))
		hash = long[:]
	}
	r, s, err := ecdsa.Sign(rand.Reader, j.key, hash)
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return input + "." + enc.EncodeToString(signature)
}

// A call is a token request. Its three JWTs are sent unless nil; headers are
// sent in addition.
type call struct {
	attestation, pop, dpop *token
	headers                http.Header
	form                   url.Values
	body                   string // instead of form
	url, contentType       string
	method                 string // "": POST
}

// pop is a request that is right in every respect: client credentials with a
// PoP JWT.
func (f *fixture) pop() *call {
	f.t.Helper()
	claims := object{"aud": issuer, "jti": rand.Text(), "iat": f.now.Unix()}
	if challenge := f.fetchChallenge(); challenge != "" {
		claims["challenge"] = challenge
	}
	return &call{
		attestation: &token{
			header: object{"typ": "oauth-client-attestation+jwt", "alg": "ES256", "kid": "attester-1"},
			claims: object{
				"sub": clientID, "iat": f.now.Unix(), "exp": f.now.Add(time.Hour).Unix(),
				"cnf": object{"jwk": publicJWK(f.t, f.instance)},
			},
			key: f.attester,
		},
		pop: &token{
			header: object{"typ": "oauth-client-attestation-pop+jwt", "alg": "ES256"},
			claims: claims,
			key:    f.instance,
		},
		headers:     http.Header{},
		form:        url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}},
		url:         issuer + "/token",
		contentType: "application/x-www-form-urlencoded",
	}
}

// withDPoP adds a DPoP proof with a key of its own.
func (f *fixture) withDPoP(c *call, key *ecdsa.PrivateKey) *call {
	c.dpop = &token{
		header: object{"typ": "dpop+jwt", "alg": "ES256", "jwk": publicJWK(f.t, key)},
		claims: object{"jti": rand.Text(), "htm": "POST", "htu": issuer + "/token", "iat": f.now.Unix()},
		key:    key,
	}
	return c
}

// combined is a request in combined mode that is right in every respect.
func (f *fixture) combined() *call {
	c := f.withDPoP(f.pop(), f.instance)
	c.pop = nil
	c.attestation.claims["sub"] = dpopID
	c.form.Set("client_id", dpopID)
	return c
}

func (f *fixture) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w
}

func (f *fixture) send(c *call) *httptest.ResponseRecorder {
	f.t.Helper()
	return f.do(f.build(c))
}

func (f *fixture) build(c *call) *http.Request {
	f.t.Helper()
	body := c.body
	if body == "" {
		body = c.form.Encode()
	}
	r := httptest.NewRequest(cmp.Or(c.method, http.MethodPost), c.url, strings.NewReader(body))
	if c.contentType != "" {
		r.Header.Set("Content-Type", c.contentType)
	}
	for name, jwt := range map[string]*token{
		"OAuth-Client-Attestation": c.attestation, "OAuth-Client-Attestation-PoP": c.pop, "DPoP": c.dpop,
	} {
		if jwt != nil {
			r.Header.Add(name, jwt.compact(f.t))
		}
	}
	for name, values := range c.headers {
		for _, value := range values {
			r.Header.Add(name, value)
		}
	}
	return r
}

// fetchChallenge gets a challenge of the authorization server; "" if there is no
// endpoint for it.
func (f *fixture) fetchChallenge() string {
	f.t.Helper()
	return f.challengeOf(issuer)
}

// challengeOf gets a challenge of the server or of its resource.
func (f *fixture) challengeOf(audience string) string {
	f.t.Helper()
	w := f.do(httptest.NewRequest(http.MethodPost, audience+"/challenge", nil))
	if w.Code == http.StatusNotFound || w.Code == http.StatusUnauthorized { // a path of the resource like others
		return ""
	}
	challenge, _ := body(f.t, w)["attestation_challenge"].(string)
	if w.Code != http.StatusOK || challenge == "" {
		f.t.Fatalf("challenge endpoint: %d %s", w.Code, w.Body)
	}
	return challenge
}
