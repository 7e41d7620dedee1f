// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
)

// parseEKCertificate finds the certificate in the contents of an NV index. It
// returns nil if there is none.
func parseEKCertificate(content []byte) *x509.Certificate {
	certificate, err := parseCertificate(trimCertificate(content))
	if err != nil {
		return nil
	}
	return certificate
}

// oidRSAESOAEP is a public key that is for RSAES-OAEP alone (RFC 4055).
var oidRSAESOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

// parseCertificate parses a certificate. Older ones for endorsement keys say that
// the key is for RSAES-OAEP; Go leaves such a key out.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil || certificate.PublicKey != nil {
		return certificate, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(certificate.RawSubjectPublicKeyInfo, &info); err != nil || !info.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
		return certificate, nil
	}
	if key, err := x509.ParsePKCS1PublicKey(info.Key.RightAlign()); err == nil {
		certificate.PublicKey = key
	}
	return certificate, nil
}

// trimCertificate returns the DER SEQUENCE in the contents of an NV index, which
// may be longer than what was written to it, and may begin with the header that
// TPM 1.2 had there: TCG_PCCLIENT_STORED_CERT, whose size covers the tag
// TCG_FULL_CERT, which not every maker has written, and the certificate (TCG PC
// Client Specific Implementation, section 7.4.4). It returns nil if there is none.
func trimCertificate(content []byte) []byte {
	if rest, found := bytes.CutPrefix(content, []byte{0x10, 0x01, 0x00}); found && len(rest) > 2 {
		if size := int(binary.BigEndian.Uint16(rest)); size <= len(rest)-2 {
			content = bytes.TrimPrefix(rest[2:2+size], []byte{0x10, 0x02})
		}
	}
	return sequence(content)
}

// sequence returns the DER SEQUENCE that octets begin with; nil if they don't.
func sequence(octets []byte) []byte {
	var found asn1.RawValue
	_, err := asn1.Unmarshal(octets, &found)
	if err != nil || found.Class != asn1.ClassUniversal || found.Tag != asn1.TagSequence || !found.IsCompound {
		return nil
	}
	return found.FullBytes
}

// splitChain returns the certificates in the contents of the NV indexes of a
// chain, in their order. They are one after the other; one that has no room in an
// index goes on in the next (EK Credential Profile 2.5, section 2.2.1.5.2). What
// follows the last of an index is filling. They are not parsed here: that is for
// whoever verifies them.
func splitChain(contents [][]byte) (chain [][]byte) {
	var rest []byte // the beginning of a certificate
	for _, content := range contents {
		if joined := append(rest, content...); parseEKCertificate(joined) != nil || sequence(content) == nil {
			content = joined // and not half a certificate, with a whole one after it
		}
		rest = nil
		for certificate := sequence(content); certificate != nil; certificate = sequence(content) {
			chain, content = append(chain, certificate), content[len(certificate):]
		}
		if len(content) > 1 && content[0] == 0x30 && len(content) < maxNV {
			rest = content
		}
	}
	return chain
}
