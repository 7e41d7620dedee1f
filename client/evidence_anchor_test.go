// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"reflect"
	"testing"
	"time"
)

// TestEvidenceWithoutAnchor: the certificate of the attester's CA stays at home,
// where it ends the chain and signs itself. A certificate between the two goes
// along, and a chain of one is sent as it is.
func TestEvidenceWithoutAnchor(t *testing.T) {
	now := newTestClock().now()
	certify := func(serial int64, name string, isCA bool, issuer *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if issuer == nil {
			issuer, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed, key
	}
	root, rootKey := certify(1, "root", true, nil, nil)
	middle, middleKey := certify(2, "middle", true, root, rootKey)
	leaf, _ := certify(3, "", false, middle, middleKey)
	alone, _ := certify(4, "alone", false, nil, nil)
	for name, tc := range map[string]struct{ chain, want [][]byte }{
		"root":         {[][]byte{leaf.Raw, middle.Raw, root.Raw}, [][]byte{leaf.Raw, middle.Raw}},
		"no root":      {[][]byte{leaf.Raw, middle.Raw}, [][]byte{leaf.Raw, middle.Raw}},
		"one":          {[][]byte{leaf.Raw}, [][]byte{leaf.Raw}},
		"one, of its":  {[][]byte{alone.Raw}, [][]byte{alone.Raw}},
		"unreadable":   {[][]byte{leaf.Raw, {1, 2, 3}}, [][]byte{leaf.Raw, {1, 2, 3}}},
		"leaf and top": {[][]byte{leaf.Raw, root.Raw}, [][]byte{leaf.Raw}},
	} {
		t.Run(name, func(t *testing.T) {
			a, key := newEvidenceAttester(t), newDeviceKey(t)
			key.chain = tc.chain
			if _, err := a.attest(key); err != nil {
				t.Fatal(err)
			}
			if len(key.requests) != 1 || !reflect.DeepEqual(key.requests[0].AKCertificates, tc.want) {
				t.Errorf("evidence was asked for %d times, with other certificates", len(key.requests))
			}
		})
	}
}
