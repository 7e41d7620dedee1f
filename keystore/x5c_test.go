// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// An issued certificate and the key that it is for.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate, one that signs itself if parent is nil.
func issue(t testing.TB, name string, ca bool, parent *issued) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueTo(t, key, name, ca, parent)
}

// issueTo is issue for a key that there is.
func issueTo(t testing.TB, key *ecdsa.PrivateKey, name string, ca bool, parent *issued) *issued {
	t.Helper()
	made := &issued{key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
		IsCA: ca, BasicConstraintsValid: true,
	}
	signer, above := key, template
	if parent != nil {
		signer, above = parent.key, parent.Certificate
	}
	der, err := x509.CreateCertificate(rand.Reader, template, above, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if made.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made
}

func TestX5C(t *testing.T) {
	root := issue(t, "root", true, nil)
	middle := issue(t, "middle", true, root)
	leaf := issue(t, "leaf", false, middle)
	direct := issue(t, "direct", false, root)
	alone := issue(t, "alone", false, nil)
	aloneCA := issue(t, "alone", true, nil)
	namesake := issue(t, "root", true, nil) // another key under the name of the root
	renamed := issueTo(t, root.key, "renamed", true, root)
	renewed := issue(t, "root", true, root) // the root's next key, signed by its present one
	type chain []*issued
	for name, test := range map[string]struct {
		chain chain
		sent  int
		err   string
	}{
		"leaf":                      {chain{leaf}, 1, ""},
		"leaf and issuer":           {chain{leaf, middle}, 2, ""},
		"anchor at the end":         {chain{leaf, middle, root}, 2, ""},
		"leaf under the anchor":     {chain{direct, root}, 1, ""},
		"none":                      {nil, 0, "is empty"},
		"another key":               {chain{middle, root}, 0, "for another key"},
		"signs itself":              {chain{alone}, 0, "signs itself"},
		"signs itself, as a CA":     {chain{aloneCA}, 0, "signs itself"},
		"signs itself, with others": {chain{alone, root}, 0, "signs itself"},
		"a gap":                     {chain{leaf, root}, 0, "certificate 1 of the chain is not signed by the next"},
		"wrong order":               {chain{leaf, root, middle}, 0, "certificate 1 of the chain is not signed by the next"},
		"another key of that name":  {chain{direct, namesake}, 0, "certificate 1 of the chain is not signed by the next"},
		"anchor twice":              {chain{direct, root, root}, 1, ""},
		"the anchor's key, renamed": {chain{issue(t, "below", false, renamed), renamed, root}, 2, ""},
		"the anchor's next key":     {chain{issue(t, "below", false, renewed), renewed, root}, 2, ""},
		"signed by no CA":           {chain{issue(t, "under a leaf", false, direct), direct}, 0, "certificate 1 of the chain is not signed by the next"},
	} {
		t.Run(name, func(t *testing.T) {
			var certs []*x509.Certificate
			for _, c := range test.chain {
				certs = append(certs, c.Certificate)
			}
			key := &leaf.key.PublicKey
			if len(test.chain) > 0 && name != "another key" {
				key = &test.chain[0].key.PublicKey
			}
			got, err := keystore.X5C(certs, key)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || got != nil {
					t.Errorf("%q, %v, want an error with %q", got, err, test.err)
				}
				return
			}
			if err != nil || len(got) != test.sent {
				t.Fatalf("%d certificates, %v, want %d", len(got), err, test.sent)
			}
			for i, text := range got {
				der, err := base64.StdEncoding.DecodeString(text)
				if err != nil || !slices.Equal(der, certs[i].Raw) {
					t.Errorf("certificate %d is another, %v", i, err)
				}
			}
		})
	}
	if _, err := keystore.X5C([]*x509.Certificate{leaf.Certificate, nil}, &leaf.key.PublicKey); err == nil {
		t.Error("a nil certificate passed")
	}
	if _, err := keystore.X5C([]*x509.Certificate{{}}, &leaf.key.PublicKey); err == nil {
		t.Error("a certificate for a key of no known kind passed")
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keystore.X5C([]*x509.Certificate{leaf.Certificate}, public); err == nil {
		t.Error("a certificate for a key of another kind passed")
	}
}
