package tpm

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
)

// parseEKCertificate finds the certificate in the contents of an NV index. It
// returns nil if there is none.
func parseEKCertificate(content []byte) *x509.Certificate {
	certificate, err := x509.ParseCertificate(trimCertificate(content))
	if err != nil {
		return nil
	}
	return certificate
}

// trimCertificate returns the DER SEQUENCE in the contents of an NV index, which
// may be longer than what was written to it, and may begin with the header that
// TPM 1.2 had there (TCG PC Client Specific Implementation, section 7.3.2). It
// returns nil if there is none.
func trimCertificate(content []byte) []byte {
	if rest, found := bytes.CutPrefix(content, []byte{0x10, 0x01, 0x00}); found && len(rest) > 2 {
		if size := int(binary.BigEndian.Uint16(rest)); size <= len(rest)-2 {
			content = rest[2 : 2+size]
		}
	}
	var sequence asn1.RawValue
	_, err := asn1.Unmarshal(content, &sequence)
	if err != nil || sequence.Class != asn1.ClassUniversal || sequence.Tag != asn1.TagSequence || !sequence.IsCompound {
		return nil
	}
	return sequence.FullBytes
}
