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
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
)

// again sends a token request with an attestation that was sent before, byte for
// byte, and a new PoP JWT.
func (f *fixture) again(attestation string) *httptest.ResponseRecorder {
	f.t.Helper()
	c := f.pop()
	c.attestation = nil
	c.headers.Set("OAuth-Client-Attestation", attestation)
	return f.send(c)
}

// TestRememberedAttestation: what is remembered of an attestation is its signature
// alone. Everything else about it is looked at again.
func TestRememberedAttestation(t *testing.T) {
	f := newFixture(t, nil)
	c := f.pop()
	for claim, value := range device() {
		c.attestation.claims[claim] = value
	}
	attested := c.attestation.compact(t)
	f.wantToken(f.again(attested), "Bearer")
	f.wantToken(f.again(attested), "Bearer")

	// Another request's client_id, and another instance's proof.
	c = f.pop()
	c.attestation = nil
	c.headers.Set("OAuth-Client-Attestation", attested)
	c.form.Set("client_id", dpopID)
	f.wantRefusal(f.send(c), badRequest, attestation, "7.1(7)", "client_id")
	c = f.pop()
	c.attestation, c.pop.key = nil, f.dpop
	c.headers.Set("OAuth-Client-Attestation", attested)
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(4)", "signature")

	// One that was not sent before, and is like it but for one character.
	for _, at := range []int{len(attested) / 2, len(attested) - 10} {
		other := "A"
		if attested[at] == 'A' {
			other = "B"
		}
		if answer := f.again(attested[:at] + other + attested[at+1:]); answer.Code != badRequest {
			t.Errorf("changed at %d: %d %s", at, answer.Code, answer.Body)
		}
	}

	// The policy changes, and changes back.
	f.server.SetPolicy(parsePolicy(t, `{"models": [{"hwmodel": "Another"}]}`))
	f.wantRefusal(f.again(attested), badRequest, attestation, "policy", "model")
	f.server.SetPolicy(nil)
	f.wantToken(f.again(attested), "Bearer")
	f.server.SetPolicy(parsePolicy(t, `{"max_age": "30m"}`))
	f.wantToken(f.again(attested), "Bearer")

	// The attester's key changes, and changes back; a bad change is none.
	keys := func(key *ecdsa.PrivateKey) jose.JSONWebKeySet {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "attester-1"}}}
	}
	if err := f.server.SetAttesters(keys(f.dpop), nil); err != nil {
		t.Fatal(err)
	}
	f.wantRefusal(f.again(attested), badRequest, attestation, "7.1(4)", "signature")
	if err := f.server.SetAttesters(jose.JSONWebKeySet{}, nil); err == nil {
		t.Error("trusts nobody")
	}
	if err := f.server.SetAttesters(keys(f.attester), nil); err != nil {
		t.Fatal(err)
	}
	f.wantToken(f.again(attested), "Bearer")

	// It gets old: for the policy, which is the same as before, and by its exp.
	f.now = f.now.Add(30*time.Minute + 1)
	f.wantRefusal(f.again(attested), badRequest, "use_fresh_attestation", "policy", "older")
	f.server.SetPolicy(nil)
	f.wantToken(f.again(attested), "Bearer")
	f.now = f.now.Add(30*time.Minute + 10*time.Second)
	f.wantRefusal(f.again(attested), badRequest, "use_fresh_attestation", "7.1(6)", "expired")
	f.now = f.now.Add(-3 * time.Hour)
	f.wantRefusal(f.again(attested), badRequest, attestation, "7.1(6)", "in the future")
}

// TestRememberedAtResource: what the server has verified, its resource has not: the
// memory is shared, and the decision is not.
func TestRememberedAtResource(t *testing.T) {
	f := newResourceFixture(t, nil)
	c := f.atResource(f.tokenCall("bearer"))
	c.headers.Set("OAuth-Client-Attestation", c.attestation.compact(t))
	c.attestation = nil
	send := func() *httptest.ResponseRecorder {
		c.pop.claims["jti"] = rand.Text()
		return f.send(c)
	}
	f.wantServed(send(), clientID)
	f.wantServed(send(), clientID)
	f.server.SetPolicy(parsePolicy(t, `{"models": [{"hwmodel": "Another"}]}`))
	f.wantUnauthorized(send(), http.StatusUnauthorized, attestation, "Bearer", "policy", "hwmodel")
}

// TestRememberedCertificate: an attestation with x5c counts for as long as the
// attester's certificate is valid.
func TestRememberedCertificate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	key := newKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	f := newFixture(t, func(cfg *authserver.Config) { cfg.AttesterRoots = roots })
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2),
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(20 * time.Minute)}, root, &f.attester.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c := f.pop()
	delete(c.attestation.header, "kid")
	c.attestation.header["x5c"] = []string{base64.StdEncoding.EncodeToString(leaf)}
	attested := c.attestation.compact(t)
	f.wantToken(f.again(attested), "Bearer")
	f.now = now.Add(20 * time.Minute)
	f.wantToken(f.again(attested), "Bearer")
	f.now = now.Add(20*time.Minute + time.Second)
	f.wantRefusal(f.again(attested), badRequest, attestation, "7.1(4)", "expired")
	f.now = now.Add(-2 * time.Minute)
	f.wantRefusal(f.again(attested), badRequest, attestation, "7.1(4)", "not yet valid")
	f.now = now
	f.wantToken(f.again(attested), "Bearer")

	// Roots that are taken away count at once.
	if err := f.server.SetAttesters(jose.JSONWebKeySet{}, x509.NewCertPool()); err != nil {
		t.Fatal(err)
	}
	f.wantRefusal(f.again(attested), badRequest, attestation, "7.1(4)", "unknown authority")
}

// TestTrustChangesUnderRequests: after a change has returned, no request is served
// by what was before it.
func TestTrustChangesUnderRequests(t *testing.T) {
	f := newFixture(t, func(cfg *authserver.Config) { cfg.Challenges = nil })
	attested := f.pop().attestation.compact(t)
	strict := parsePolicy(t, `{"require_oemboot": true}`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				f.again(attested)
			}
		})
	}
	for range 20 {
		f.server.SetPolicy(strict)
		if w := f.again(attested); w.Code != badRequest {
			t.Errorf("served against the policy: %d", w.Code)
		}
		f.server.SetPolicy(nil)
		if w := f.again(attested); w.Code != http.StatusOK {
			t.Errorf("refused without a policy: %d %s", w.Code, w.Body)
		}
	}
	wg.Wait()
}
