// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/attester"
	verify "github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// mistaken are a reference server and a reference attester that somebody has set up with
// a mistake, on addresses of their own.
type mistaken struct {
	t        *testing.T
	issuer   string
	attester string
	self     string // file for -self, which the server trusts
	keys     string // folder of a key in software called "k"

	server    authserver.Config
	attesting attester.Config
	metadata  func(document map[string]any)
	// answer answers in the place of a server, if it is not nil and returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

// newMistaken returns what has no mistake yet; start starts it.
func newMistaken(t *testing.T) (m *mistaken, start func()) {
	t.Helper()
	m = &mistaken{t: t, keys: t.TempDir()}
	var public jose.JSONWebKey
	m.self, public = newSelf(t)
	ok(t, "key", "create", "-store", "soft", "-keys", m.keys, "-name", "k")
	var issuer, attests http.Handler
	hand := func(h *http.Handler) *httptest.Server {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m.answer == nil || !m.answer(w, r) {
				(*h).ServeHTTP(w, r)
			}
		}))
		t.Cleanup(server.Close)
		return server
	}
	m.issuer, m.attester = hand(&issuer).URL, hand(&attests).URL
	quiet := slog.New(slog.DiscardHandler)
	key := newAttesterKey(t)
	m.attesting = attester.Config{URL: m.attester, Clients: []string{clientID}, Key: key, Logger: quiet}
	m.server = authserver.Config{
		Issuer: m.issuer, Clients: []authserver.Client{{ID: clientID, Scopes: []string{"read"}}},
		Challenges:   &authserver.ChallengeConfig{Endpoint: true},
		AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public, key.Public()}},
		Logger:       quiet,
	}
	return m, func() {
		a, err := attester.New(m.attesting)
		if err != nil {
			t.Fatal(err)
		}
		s, err := authserver.New(m.server)
		if err != nil {
			t.Fatal(err)
		}
		attests, issuer = a, m.rewritten(s)
	}
}

// rewritten is a server with other metadata.
func (m *mistaken) rewritten(s http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.metadata == nil || !strings.Contains(r.URL.Path, "/.well-known/") {
			s.ServeHTTP(w, r)
			return
		}
		recorder := httptest.NewRecorder()
		s.ServeHTTP(recorder, r)
		var document map[string]any
		if json.Unmarshal(recorder.Body.Bytes(), &document) == nil {
			m.metadata(document)
		}
		maps.Copy(w.Header(), http.Header{"Content-Type": {"application/json"}})
		w.WriteHeader(recorder.Code)
		_ = json.NewEncoder(w).Encode(document)
	})
}

// doctor returns flags of doctor for the client, with how it is attested.
func (m *mistaken) doctor(more ...string) []string {
	return append([]string{"-issuer", m.issuer, "-client-id", clientID}, more...)
}

// provisioned returns flags for an attestation of the key k with these claims and header,
// signed by the key in self.
func (m *mistaken) provisioned(change func(header, claims map[string]any)) []string {
	m.t.Helper()
	store, err := softkey.OpenDir(m.keys)
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := store.Open(m.t.Context(), "k")
	if err != nil {
		m.t.Fatal(err)
	}
	jwk, err := keystore.JWK(key.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	header := map[string]any{"typ": "oauth-client-attestation+jwt", "kid": "self-1"}
	claims := map[string]any{
		"sub": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "cnf": map[string]any{"jwk": jwk},
	}
	change(header, claims)
	content, err := os.ReadFile(m.self)
	if err != nil {
		m.t.Fatal(err)
	}
	var private jose.JSONWebKey
	if err := json.Unmarshal(content, &private); err != nil {
		m.t.Fatal(err)
	}
	options := &jose.SignerOptions{}
	for name, value := range header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private.Key}, options)
	if err != nil {
		m.t.Fatal(err)
	}
	compact, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		m.t.Fatal(err)
	}
	return m.doctor("-store", "soft", "-keys", m.keys, "-name", "k", "-attestation", writeFile(m.t, "attestation", compact))
}

func newAttesterKey(t *testing.T) jose.JSONWebKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: private, KeyID: "attester-1", Algorithm: "ES256", Use: "sig"}
}

// strictEvidence demands evidence of TPMs by a maker that made none.
func strictEvidence(t *testing.T) *verify.Verifier {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := verify.NewRoots([]*x509.Certificate{certificate}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := verify.CreateCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := verify.New(verify.Config{Roots: roots, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

// page answers everything with a page for people.
func page(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, "<html>log in</html>")
	return true
}

func publicOf(private jose.JSONWebKey) jose.JSONWebKey { return private.Public() }
