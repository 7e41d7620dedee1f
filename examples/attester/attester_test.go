// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
)

// cnfOf is how the key of an instance must look in an attestation: the required
// members of a public key and no others.
func cnfOf(t *testing.T, key *ecdsa.PrivateKey) object {
	t.Helper()
	public, err := jose.JSONWebKey{Key: &key.PublicKey, Algorithm: "ES256"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	w.Write(public)
	return object{"jwk": body(t, w)}
}

// TestAttestationA1ToA6: exactly the header and the claims of section 4.
func TestAttestationA1ToA6(t *testing.T) {
	f := newFixture(t, nil)
	header, claims := f.open(f.wantAttestation(f.send(f.request())))
	if typ := header.ExtraHeaders["typ"]; typ != "oauth-client-attestation+jwt" || header.Algorithm != "ES256" || header.KeyID != "attester-1" || len(header.ExtraHeaders) != 1 || header.JSONWebKey != nil { // A1, A9
		t.Errorf("header %+v", header)
	}
	now := float64(f.now.Unix())
	want := object{"sub": clientID, "exp": now + 3600, "iat": now, "cnf": cnfOf(t, f.instance)} // A2, A3, A5, A4
	if !reflect.DeepEqual(claims, want) {                                                       // A6: and no other
		t.Errorf("claims %v, want %v", claims, want)
	}
}

// TestAttestationA6Issuer: iss only where it is wanted, and the lifetime asked for.
func TestAttestationA6Issuer(t *testing.T) {
	f := newFixture(t, func(cfg *attester.Config) { cfg.Issuer, cfg.Lifetime = "https://attester.example.com", time.Minute })
	w := f.send(f.request())
	_, claims := f.open(f.wantAttestation(w))
	if claims["iss"] != "https://attester.example.com" || claims["exp"] != float64(f.now.Unix()+60) || body(t, w)["expires_in"] != 60.0 {
		t.Errorf("claims %v", claims)
	}
}

// TestAttestationA4: what else a sender puts into his jwk is not signed for.
func TestAttestationA4(t *testing.T) {
	f := newFixture(t, nil)
	r := f.request()
	r.jwk = jose.JSONWebKey{Key: &f.instance.PublicKey, KeyID: "kid of the sender", Use: "sig", Algorithm: "ES384"}
	_, claims := f.open(f.wantAttestation(f.send(r)))
	if want := cnfOf(t, f.instance); !reflect.DeepEqual(claims["cnf"], want) {
		t.Errorf("cnf %v, want %v", claims["cnf"], want)
	}
}

// TestAttestationA7A9: each kind of signing key with its algorithm, found by
// kid or by x5c.
func TestAttestationA7A9(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]any{
		"ES256": newKey(t, elliptic.P256()), "ES384": newKey(t, elliptic.P384()), "ES512": newKey(t, elliptic.P521()), "EdDSA": edKey,
	}
	for alg, key := range keys {
		f := newFixture(t, func(cfg *attester.Config) { cfg.Key = jose.JSONWebKey{Key: key, KeyID: "k"} })
		header, _ := f.open(f.wantAttestation(f.send(f.request())), jose.SignatureAlgorithm(alg))
		if header.Algorithm != alg || header.KeyID != "k" {
			t.Errorf("%s: header %+v", alg, header)
		}
	}
	if len(keys) != 4 {
		t.Errorf("%d keys, want 4", len(keys))
	}

	rootKey := newKey(t, elliptic.P256())
	root := certificate(t, nil, rootKey, rootKey)
	f := newFixture(t, func(cfg *attester.Config) {
		cfg.Key.Certificates = []*x509.Certificate{certificate(t, root, rootKey, cfg.Key.Key.(*ecdsa.PrivateKey))}
	})
	header, _ := f.open(f.wantAttestation(f.send(f.request())))
	roots := x509.NewCertPool()
	roots.AddCert(root)
	chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: f.now})
	if err != nil || !f.key.PublicKey.Equal(chains[0][0].PublicKey) || header.KeyID != "attester-1" {
		t.Errorf("x5c: %v, kid %q", err, header.KeyID)
	}
}

// certificate makes a certificate for key: a root if parent is nil.
func certificate(t testing.TB, parent *x509.Certificate, parentKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attester"},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
	}
	if parent == nil {
		template.Subject.CommonName, template.IsCA, template.BasicConstraintsValid = "root", true, true
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestIssue: step (f), ahead of any request.
func TestIssue(t *testing.T) {
	f := newFixture(t, nil)
	attestation, err := f.server.Issue(clientID, &f.instance.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	_, claims := f.open(attestation)
	if claims["sub"] != clientID || !reflect.DeepEqual(claims["cnf"], cnfOf(t, f.instance)) {
		t.Errorf("claims %v", claims)
	}
	for name, issue := range map[string]func() (string, error){
		"client not served": func() (string, error) { return f.server.Issue("stranger", &f.instance.PublicKey) },
		"private key":       func() (string, error) { return f.server.Issue(clientID, f.instance) },
		"no key":            func() (string, error) { return f.server.Issue(clientID, nil) },
	} {
		if attestation, err := issue(); err == nil || attestation != "" || !strings.HasPrefix(err.Error(), "attester: ") {
			t.Errorf("%s: %q, %v", name, attestation, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	key := newKey(t, elliptic.P256())
	cases := map[string]struct {
		change func(*attester.Config)
		want   string
	}{
		"no URL":         {func(c *attester.Config) { c.URL = "" }, "not an absolute https URL"},
		"http URL":       {func(c *attester.Config) { c.URL = "http://attester.example.com" }, "use https"},
		"no clients":     {func(c *attester.Config) { c.Clients = nil }, "Clients"},
		"empty client":   {func(c *attester.Config) { c.Clients = []string{""} }, "Clients"},
		"no key":         {func(c *attester.Config) { c.Key = jose.JSONWebKey{} }, "not a private key"},
		"public key":     {func(c *attester.Config) { c.Key.Key = &key.PublicKey }, "not a private key"},
		"MAC key":        {func(c *attester.Config) { c.Key.Key = []byte("0123456789abcdef0123456789abcdef") }, "not a private key"},
		"no kid":         {func(c *attester.Config) { c.Key.KeyID = "" }, "no kid"},
		"alg of another": {func(c *attester.Config) { c.Key.Algorithm = "ES384" }, "ES384"},
		"other certificate": {func(c *attester.Config) {
			c.Key.Certificates = []*x509.Certificate{certificate(t, nil, newKey(t, elliptic.P256()), newKey(t, elliptic.P256()))}
		}, "another key"},
		"negative lifetime": {func(c *attester.Config) { c.Lifetime = -1 }, "Lifetime"},
	}
	for name, tc := range cases {
		cfg := attester.Config{URL: attesterURL, Clients: []string{clientID}, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}
		if _, err := attester.New(cfg); err != nil {
			t.Fatalf("before the change: %v", err)
		}
		tc.change(&cfg)
		if _, err := attester.New(cfg); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "attester: ") {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
	if len(cases) != 11 {
		t.Errorf("%d cases, want 11", len(cases))
	}
}

// FuzzClientAttestation: whatever is sent, the answer is a refusal with a code.
func FuzzClientAttestation(f *testing.F) {
	server := newFixture(f, nil)
	r := server.request()
	r.claims["aud"] = "https://other.example.com" // no seed is good enough
	good := r.compact(f)
	f.Add(`{"request":"` + good + `"}`)
	f.Add(`{"request":"` + good + `","request":"a.b.c"}`)
	f.Add(`{"request":"..","x":[[[[[[]]]]]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		w := server.post("/client-attestation", text)
		answer := body(t, w)
		if code, _ := answer["error"].(string); w.Code < 400 || w.Code >= 500 || code == "" {
			t.Fatalf("%d %v", w.Code, answer)
		}
	})
}

// TestAttestationVendorClaims: what a vendor adds is there, and replaces nothing.
func TestAttestationVendorClaims(t *testing.T) {
	vendor := map[string]any{"wallet_name": "Meter", "client_status": map[string]any{"exp": 1}, "big": json.Number("123456789012345678901")}
	f := newFixture(t, func(cfg *attester.Config) { cfg.Claims = vendor })
	_, claims := f.open(f.wantAttestation(f.send(f.request())))
	if claims["wallet_name"] != "Meter" || !reflect.DeepEqual(claims["client_status"], object{"exp": 1.0}) || claims["sub"] != clientID || len(claims) != 7 {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"iss", "sub", "iat", "exp", "cnf"} {
		if _, err := attester.New(attester.Config{URL: attesterURL, Clients: []string{clientID}, Key: jose.JSONWebKey{Key: newKey(t, elliptic.P256()), KeyID: "k"}, Claims: map[string]any{name: "x"}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Claims with %s: %v", name, err)
		}
	}
}

// TestAttestationRounding: iat and exp are multiples, and nothing is younger or
// lives longer than it should.
func TestAttestationRounding(t *testing.T) {
	for _, rounding := range []time.Duration{time.Second, time.Minute, 7 * time.Minute, 30 * time.Minute} {
		f := newFixture(t, func(cfg *attester.Config) { cfg.Rounding = rounding })
		f.now = f.now.Add(1234 * time.Second)
		_, claims := f.open(f.wantAttestation(f.send(f.request())))
		iat, exp := int64(claims["iat"].(float64)), int64(claims["exp"].(float64))
		now, unit := f.now.Unix(), int64(rounding.Seconds())
		if iat%unit != 0 || exp%unit != 0 || iat > now || iat <= now-unit || exp > now+3600 || exp-iat > 3600 || exp < now+1800 {
			t.Errorf("%v: iat %d, exp %d at %d", rounding, iat, exp, now)
		}
	}
	for _, rounding := range []time.Duration{-time.Minute, time.Millisecond, 31 * time.Minute} {
		if _, err := attester.New(attester.Config{URL: attesterURL, Clients: []string{clientID}, Key: jose.JSONWebKey{Key: newKey(t, elliptic.P256()), KeyID: "k"}, Rounding: rounding}); err == nil {
			t.Errorf("Rounding %v passed", rounding)
		}
	}
}

// TestAttestationX5CWithoutAnchor: the trust anchor stays at home, and a
// certificate that does not fit is found at the start.
func TestAttestationX5CWithoutAnchor(t *testing.T) {
	rootKey := newKey(t, elliptic.P256())
	root := certificate(t, nil, rootKey, rootKey)
	var leaf *x509.Certificate
	f := newFixture(t, func(cfg *attester.Config) {
		leaf = certificate(t, root, rootKey, cfg.Key.Key.(*ecdsa.PrivateKey))
		cfg.Key.Certificates = []*x509.Certificate{leaf, root}
		cfg.Key.KeyID = ""
	})
	attestation := f.wantAttestation(f.send(f.request()))
	first, _, _ := strings.Cut(attestation, ".")
	var header struct {
		KeyID string `json:"kid"`
		X5C   [][]byte
	}
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil || json.Unmarshal(text, &header) != nil || len(header.X5C) != 1 || string(header.X5C[0]) != string(leaf.Raw) || header.KeyID != "" {
		t.Errorf("header %s, %v", text, err)
	}
	for name, chain := range map[string][]*x509.Certificate{"another key": {root}, "a gap": {leaf, certificate(t, nil, rootKey, newKey(t, elliptic.P256()))}} {
		if _, err := attester.New(attester.Config{URL: attesterURL, Clients: []string{clientID}, Key: jose.JSONWebKey{Key: f.key, Certificates: chain}}); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}
