// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
)

// comparable returns the certificate with its two names in one spelling, so that
// they can be compared byte by byte. Makers of TPMs write an issuer's name as
// UTF8String in one certificate and as PrintableString in the other, or in other
// letters; RFC 5280, section 7.1, has that for the same name, and Go's verifier
// has not. Signatures are over the certificate as it was read, which stays.
func comparable(c *x509.Certificate) *x509.Certificate {
	spelt := *c
	spelt.RawSubject, spelt.RawIssuer = comparableName(c.RawSubject), comparableName(c.RawIssuer)
	return &spelt
}

// comparableName returns a distinguished name in one spelling of all that mean
// the same.
func comparableName(raw []byte) []byte {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return raw
	}
	for _, set := range name {
		for i := range set {
			if text, ok := set[i].Value.(string); ok {
				set[i].Value = strings.ToLower(strings.Join(strings.Fields(text), " "))
			}
		}
	}
	spelt, err := asn1.Marshal(name)
	if err != nil {
		return raw
	}
	return spelt
}

// oidRSAESOAEP is a public key that is for RSAES-OAEP alone (RFC 4055).
var oidRSAESOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

// parseCertificate parses a certificate. Older ones for endorsement keys say that
// the key is for RSAES-OAEP; Go leaves such a key out.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil || c.PublicKey != nil {
		return c, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil || !info.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
		return c, nil
	}
	var key *rsa.PublicKey
	if key, err = x509.ParsePKCS1PublicKey(info.Key.RightAlign()); err == nil {
		c.PublicKey, c.PublicKeyAlgorithm = key, x509.RSA
	}
	return c, nil
}
