// SPDX-License-Identifier: Apache-2.0

package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// X5C returns the "x5c" header parameter (RFC 7515, section 4.1.6) of what the
// key signs: the chain from the key's own certificate upwards, each in standard
// base64 of its DER. A trust anchor at the end of the chain, which signs itself, is
// left out: a verifier has its own, and OpenID4VC High Assurance Interoperability
// Profile 1.0 forbids to send it.
//
// It fails if the chain is empty, if the first certificate is for another key or
// signs itself, and if one is not signed by the next. Whether the certificates are
// valid now is the verifier's business.
func X5C(chain []*x509.Certificate, pub crypto.PublicKey) ([]string, error) {
	for i, cert := range chain {
		if cert == nil {
			return nil, fmt.Errorf("keystore: certificate %d of the chain is nil", i+1)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("keystore: the certificate chain is empty")
	}
	leaf, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !leaf.Equal(pub):
		return nil, errors.New("keystore: the first certificate of the chain is for another key")
	case signsItself(chain[0]):
		return nil, errors.New("keystore: the key's certificate signs itself: a verifier would have to know it as a trust anchor, which is not sent; let a CA sign it")
	}
	for i, cert := range chain[1:] {
		if err := chain[i].CheckSignatureFrom(cert); err != nil {
			return nil, fmt.Errorf("keystore: certificate %d of the chain is not signed by the next: %w", i+1, err)
		}
	}
	for signsItself(chain[len(chain)-1]) { // and never the first
		chain = chain[:len(chain)-1]
	}
	x5c := make([]string, len(chain))
	for i, cert := range chain {
		x5c[i] = base64.StdEncoding.EncodeToString(cert.Raw)
	}
	return x5c, nil
}

// signsItself does not ask whether it may: a key's certificate is no CA's.
func signsItself(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}
