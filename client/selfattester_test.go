// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// attestedClaims returns the claims of what s makes, and its header.
func attestedClaims(t *testing.T, s client.SelfAttester, req client.AttestRequest) (map[string]any, jose.Header) {
	t.Helper()
	attestation, err := s.Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseSigned(attestation, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := token.Claims(s.Key.Public(), &claims); err != nil {
		t.Fatal(err)
	}
	return claims, token.Headers[0]
}

// TestSelfAttesterIssuer: "iss" goes out where it was asked for, and where the
// profile has one.
func TestSelfAttesterIssuer(t *testing.T) {
	key := newKey(t, "ES256")
	claimed := map[string]any{"iss": "claimed"}
	for name, test := range map[string]struct {
		profile transport.Profile
		issuer  string
		claims  map[string]any
		want    any
	}{
		"default":            {"", "", nil, nil},
		"-12":                {transport.ProfileDraft12, "", nil, nil},
		"-10":                {transport.ProfileDraft10, "", nil, nil},
		"OpenID4VCI":         {transport.ProfileOpenID4VCI, "", nil, "client"},
		"Keycloak":           {transport.ProfileKeycloak, "", nil, "client"},
		"Issuer":             {"", "vendor", nil, "vendor"},
		"Issuer, Keycloak":   {transport.ProfileKeycloak, "vendor", nil, "vendor"},
		"in Claims":          {"", "", claimed, "claimed"},
		"in Claims, profile": {transport.ProfileKeycloak, "", claimed, "claimed"},
		"in both":            {transport.ProfileKeycloak, "vendor", claimed, "vendor"},
	} {
		s := client.SelfAttester{Key: key, Issuer: test.issuer, Claims: test.claims}
		claims, _ := attestedClaims(t, s, client.AttestRequest{ClientID: "client", Key: key, Profile: test.profile})
		if claims["iss"] != test.want {
			t.Errorf("%s: iss %v, want %v", name, claims["iss"], test.want)
		}
	}
}

// TestSelfAttesterRounding: multiples of Rounding, of which neither is late, and
// the exact time for whoever has asked for a fresh one.
func TestSelfAttesterRounding(t *testing.T) {
	key := newKey(t, "ES256")
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		lifetime, rounding time.Duration
		rejected           string
		now                int64
		iat, exp           float64
	}{
		"off":               {0, 0, "", 1_000_123, 1_000_123, 1_000_423},
		"a minute":          {0, time.Minute, "", 1_000_123, 1_000_080, 1_000_380},
		"on the boundary":   {0, time.Minute, "", 1_000_080, 1_000_080, 1_000_380},
		"before it":         {0, time.Minute, "", 1_000_139, 1_000_080, 1_000_380},
		"an hour of a day":  {day, time.Hour, "", 1_000_123, 997_200, 1_083_600},
		"no even multiple":  {100 * time.Second, 30 * time.Second, "", 1_000_123, 1_000_110, 1_000_200},
		"refused before":    {0, time.Minute, "a.b.c", 1_000_123, 1_000_123, 1_000_423},
		"half the lifetime": {2 * time.Minute, time.Minute, "", 1_000_123, 1_000_080, 1_000_200},
	} {
		s := client.SelfAttester{Key: key, Lifetime: test.lifetime, Rounding: test.rounding}
		claims, _ := attestedClaims(t, s, client.AttestRequest{
			ClientID: "client", Key: key, Rejected: test.rejected, Clock: func() time.Time { return time.Unix(test.now, 999_999_999) },
		})
		if claims["iat"] != test.iat || claims["exp"] != test.exp {
			t.Errorf("%s: iat %.0f, exp %.0f, want %.0f, %.0f", name, claims["iat"], claims["exp"], test.iat, test.exp)
		}
	}
}

// certify makes a CA and a certificate of it for pub.
func certify(t *testing.T, pub crypto.PublicKey) (leaf, root *x509.Certificate) {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string, isCA bool, parent *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, ca)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	root = make("root", true, nil, &ca.PublicKey)
	return make("attester", false, root, pub), root
}

// TestSelfAttesterCertificates: a verifier that knows the anchor alone finds the
// key, and one that goes by kid finds it, too.
func TestSelfAttesterCertificates(t *testing.T) {
	key := newKey(t, "ES256")
	leaf, root := certify(t, key.Public())
	for name, chain := range map[string][]*x509.Certificate{"leaf": {leaf}, "with the anchor": {leaf, root}} {
		self := client.SelfAttester{Key: key, KeyID: "1", Certificates: chain}
		request := client.AttestRequest{ClientID: "client", Key: key}
		attestation, err := self.Attest(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(attestation, ".")
		text, err := base64.RawURLEncoding.DecodeString(first)
		var sent struct{ X5C [][]byte }
		if err != nil || json.Unmarshal(text, &sent) != nil || len(sent.X5C) != 1 {
			t.Errorf("%s: %d certificates sent, want the leaf: %v", name, len(sent.X5C), err)
		}
		_, header := attestedClaims(t, self, request)
		roots := x509.NewCertPool()
		roots.AddCert(root)
		chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: time.Unix(1_800_000_000, 0)})
		if err != nil || len(chains) != 1 || len(chains[0]) != 2 || !chains[0][0].Equal(leaf) || header.KeyID != "1" {
			t.Errorf("%s: %v, %v, kid %q", name, chains, err, header.KeyID)
		}
	}
}

// TestNewRefusesSelfAttesters: what could not attest is found before a key is
// made.
func TestNewRefusesSelfAttesters(t *testing.T) {
	key := newKey(t, "ES256")
	leaf, root := certify(t, newKey(t, "ES256").Public())
	r := newRig(t, transporttest.Policy{})
	for name, test := range map[string]struct {
		attester client.SelfAttester
		want     string
	}{
		"another's certificate":  {client.SelfAttester{Certificates: []*x509.Certificate{leaf, root}}, "another key"},
		"nil certificate":        {client.SelfAttester{Certificates: []*x509.Certificate{nil}}, "nil"},
		"rounded to nothing":     {client.SelfAttester{Rounding: 5 * time.Minute}, "Rounding"},
		"negative rounding":      {client.SelfAttester{Rounding: -time.Minute}, "Rounding"},
		"less than a second":     {client.SelfAttester{Rounding: time.Millisecond}, "Rounding"},
		"life of less than that": {client.SelfAttester{Lifetime: time.Millisecond}, "Lifetime"},
		"negative life":          {client.SelfAttester{Lifetime: -time.Hour}, "Lifetime"},
	} {
		test.attester.Key = key
		cfg := r.config()
		cfg.Attester = test.attester
		if _, err := client.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, test.want)
		}
		if _, err := test.attester.Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key}); err == nil {
			t.Errorf("%s: attested", name)
		}
	}
	if n := r.store.creates.Load(); n != 0 {
		t.Errorf("%d keys made", n)
	}
}
