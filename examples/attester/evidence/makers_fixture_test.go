// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// roots are those with the given anchors.
func roots(t testing.TB, anchors ...*x509.Certificate) *evidence.Roots {
	t.Helper()
	made, err := evidence.NewRoots(anchors, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newMaker(t testing.TB) *factory.TPMMaker {
	t.Helper()
	maker, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return maker
}

func issuer(t testing.TB, of *factory.TPMMaker, name string, change func(*x509.Certificate)) *factory.TPMMaker {
	t.Helper()
	made, err := of.Issuer(name, change)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// enrol sends an EK with the certificates and returns why it was refused; "" if
// only the attestation key was, which is not there.
func enrol(t testing.TB, cfg evidence.Config, ek []byte, certificates ...[]byte) string {
	t.Helper()
	var err error
	if cfg.CA, err = evidence.CreateCA(time.Now()); err != nil {
		t.Fatal(err)
	}
	verifier, err := evidence.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier.Enrol(evidence.EnrolmentRequest{EK: ek, EKCertificates: certificates})
	if strings.Contains(err.Error(), "public area of the AK") {
		return ""
	}
	return err.Error()
}

// A leaf is the certificate of an endorsement key.
func leaf(t testing.TB, maker *factory.TPMMaker, serial int64) (ek, der []byte) {
	t.Helper()
	key := newKey(t)
	ek, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err = maker.Certify(&key.PublicKey, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(serial) })
	if err != nil {
		t.Fatal(err)
	}
	return ek, der
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// listed makes a revocation list.
func listed(t testing.TB, by *factory.TPMMaker, change func(*x509.RevocationList), serials ...int64) []byte {
	t.Helper()
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: now})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.Root, by.Key())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// otherSpelling is a name as another program has written it: in UTF8String, where
// Go writes PrintableString, in capitals and with more spaces.
func otherSpelling(t testing.TB, commonName string) []byte {
	t.Helper()
	value := asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(strings.ToUpper(strings.ReplaceAll(commonName, " ", "  ")))}
	raw, err := asn1.Marshal([][]struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue
	}{{{asn1.ObjectIdentifier{2, 5, 4, 3}, value}}})
	if err != nil {
		t.Fatal(err)
	}
	// RelativeDistinguishedName is a SET.
	raw[2] = 0x31
	return raw
}

// certifyAnew has another maker certify an EK.
func certifyAnew(t testing.TB, maker *factory.TPMMaker, ek []byte) []byte {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(ek)
	if err != nil {
		t.Fatal(err)
	}
	der, err := maker.Certify(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// rsaLink makes the certificate of a CA with an RSA key of a size, which nobody has the
// private half of.
func rsaLink(t testing.TB, bits int, name string) []byte {
	t.Helper()
	modulus := make([]byte, bits/8)
	rand.Read(modulus)
	modulus[0] |= 0x80
	modulus[len(modulus)-1] |= 1
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: template.Subject}, public, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}
