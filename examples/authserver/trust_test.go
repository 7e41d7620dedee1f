// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
)

// TestX5C: an attester that is trusted through a certificate (section 10.8).
func TestX5C(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	newCA := func() (*x509.Certificate, *ecdsa.PrivateKey) {
		key := newKey(t, elliptic.P256())
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	leafOf := func(ca *x509.Certificate, caKey *ecdsa.PrivateKey, key *ecdsa.PrivateKey) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "attester"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * time.Minute)}
		der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(der)
	}
	root, rootKey := newCA()
	otherRoot, otherKey := newCA()
	trust := func(cfg *authserver.Config) {
		cfg.AttesterKeys.Keys = nil
		cfg.AttesterRoots = x509.NewCertPool()
		cfg.AttesterRoots.AddCert(root)
	}
	send := func(f *fixture, chain ...string) *httptest.ResponseRecorder {
		c := f.pop()
		delete(c.attestation.header, "kid")
		c.attestation.header["x5c"] = chain
		return f.send(c)
	}

	f := newFixture(t, trust)
	f.wantToken(send(f, leafOf(root, rootKey, f.attester)), "Bearer")
	f.wantRefusal(send(f, leafOf(otherRoot, otherKey, f.attester)), badRequest, attestation, "7.1(4)", "x5c")
	f.wantRefusal(send(f, leafOf(root, rootKey, f.dpop)), badRequest, attestation, "7.1(4)", "signature")
	f.wantRefusal(f.send(f.pop()), badRequest, attestation, "7.1(4)", "no trusted attester key")
	f.now = f.now.Add(40 * time.Minute)
	f.wantRefusal(send(f, leafOf(root, rootKey, f.attester)), badRequest, attestation, "7.1(4)", "expired")
	f = newFixture(t, nil) // no roots: a chain proves nothing
	f.wantRefusal(send(f, leafOf(root, rootKey, f.attester)), badRequest, attestation, "7.1(4)", "no trusted attester key")
}

// TestReferenceAttester: what the reference attester issues is taken here, and
// exactly as long as it says.
func TestReferenceAttester(t *testing.T) {
	f := newFixture(t, nil)
	reference, err := attester.New(attester.Config{
		URL: "https://attester.example.com", Clients: []string{clientID}, Lifetime: time.Minute,
		Key: jose.JSONWebKey{Key: f.attester, KeyID: "attester-1"}, Now: func() time.Time { return f.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !f.attester.PublicKey.Equal(reference.JWKS().Keys[0].Key) {
		t.Error("JWKS has another key")
	}
	attestation, err := reference.Issue(clientID, &f.instance.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	send := func() *httptest.ResponseRecorder {
		c := f.pop()
		c.attestation = nil
		c.headers[http.CanonicalHeaderKey("OAuth-Client-Attestation")] = []string{attestation}
		return f.send(c)
	}
	f.wantToken(send(), "Bearer")
	f.now = f.now.Add(70*time.Second - 1)
	f.wantToken(send(), "Bearer")
	f.now = f.now.Add(1)
	f.wantRefusal(send(), badRequest, "use_fresh_attestation", "7.1(6)", "expired")
}
