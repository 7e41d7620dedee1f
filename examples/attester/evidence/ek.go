// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"
)

// An endorsement key (EK) is a TPM's identity. Its certificate is the TPM
// maker's word that the key is in a genuine TPM.

// An Endorsement says why a TPM is taken for genuine.
type Endorsement struct {
	// EK identifies the TPM: the SHA-256 digest of the endorsement key's
	// SubjectPublicKeyInfo, in hexadecimal. It must stay with the attester:
	// whoever else learns it can recognize the device.
	EK string
	// Certificates are the verified certificate of the endorsement key and the
	// device's links from it to an anchor, DER. There are none if the registry
	// alone vouches for the key.
	Certificates                 [][]byte
	Manufacturer, Model, Version string // of the TPM, from the certificate
	key                          crypto.PublicKey
}

// Values of the claim tpm_endorsement.
const (
	endorsedByMaker    = "certificate"
	endorsedByRegistry = "registry"
)

// by says who vouches for the endorsement key.
func (e *Endorsement) by() string {
	if len(e.Certificates) > 0 {
		return endorsedByMaker
	}
	return endorsedByRegistry
}

// fingerprint identifies an endorsement key.
func fingerprint(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(spki)
	return hex.EncodeToString(digest[:]), nil
}

// checkEK verifies the certificate for the endorsement key ek (a DER
// SubjectPublicKeyInfo) among those that the device sent; the others may be links
// from it to a maker that is trusted. Where none can be verified, the registry may
// vouch for the key instead.
func (s *state) checkEK(ek []byte, certificates [][]byte) (*Endorsement, error) {
	key, err := x509.ParsePKIXPublicKey(ek)
	if err != nil {
		return nil, refuse(CodeInvalidRequest, "ek: %v", err)
	}
	id, err := fingerprint(key)
	if err != nil {
		return nil, refuse(CodeUntrustedTPM, "ek: %v", err)
	}
	endorsement, err := s.checkCertificates(key, certificates)
	if err == nil {
		endorsement.EK = id
		return endorsement, nil
	}
	// A maker's word against a TPM counts for more than the registry's for it.
	if !errors.Is(err, errRevoked) && !errors.Is(err, errNoList) && s.registry.vouchesFor(id) {
		return &Endorsement{EK: id, key: key}, nil
	}
	return nil, refuse(CodeUntrustedTPM, "%v", err)
}

// checkCertificates verifies that one of the certificates is a TPM maker's for
// key.
func (s *state) checkCertificates(key crypto.PublicKey, certificates [][]byte) (*Endorsement, error) {
	if len(certificates) > maxEKCertificates {
		return nil, fmt.Errorf("%d EK certificates, and %d are the most", len(certificates), maxEKCertificates)
	}
	var leaves, links []*x509.Certificate
	var unread error
	for i, der := range certificates {
		parsed, err := parseCertificate(der)
		if err != nil {
			unread = also(unread, fmt.Errorf("certificate %d cannot be read: %w", i+1, err))
			continue
		}
		if rsaKey, ok := parsed.PublicKey.(*rsa.PublicKey); ok && rsaKey.N.BitLen() > maxRSA {
			unread = also(unread, fmt.Errorf("certificate %d has an RSA key of %d bits, and %d are the most", i+1, rsaKey.N.BitLen(), maxRSA))
			continue
		}
		if public, ok := parsed.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(key) {
			leaves = append(leaves, parsed)
		} else {
			links = append(links, parsed)
		}
	}
	var failed error
	for _, leaf := range leaves {
		endorsement, err := s.checkCertificate(leaf, links)
		if err == nil {
			endorsement.key = key
			return endorsement, nil
		}
		failed = also(failed, fmt.Errorf("EK certificate: %w", err))
	}
	switch {
	case failed != nil:
		return nil, also(failed, unread)
	case len(certificates) == 0:
		return nil, errors.New("no EK certificate, and the registry does not vouch for a TPM without")
	default:
		return nil, also(errors.New("no EK certificate is for ek"), unread)
	}
}

// also returns both errors, on one line.
func also(first, then error) error {
	switch {
	case first == nil:
		return then
	case then == nil:
		return first
	}
	return fmt.Errorf("%w; %w", first, then)
}

// checkCertificate verifies a certificate of an endorsement key. It must follow
// the TCG EK Credential Profile, section 3.2; go-attestation checks that.
func (s *state) checkCertificate(leaf *x509.Certificate, links []*x509.Certificate) (*Endorsement, error) {
	certificate, err := ekx509.ToEKCertificate(leaf)
	if err != nil {
		return nil, err
	}
	if !certificate.HasEkcExtendedKeyUsage {
		return nil, errors.New("is not for an EK: no extended key usage 2.23.133.8.1")
	}
	used, err := s.roots.verify(certificate.Certificate, links, s.now())
	if err != nil {
		return nil, err
	}
	e := &Endorsement{
		Certificates: [][]byte{leaf.Raw},
		Manufacturer: certificate.TpmManufacturer,
		Model:        certificate.TpmModel,
		Version:      certificate.TpmVersion,
	}
	size := len(leaf.Raw)
	for _, link := range used {
		e.Certificates = append(e.Certificates, link.Raw)
		size += len(link.Raw)
	}
	if size > maxEKChain {
		return nil, fmt.Errorf("has, with the device's links, %d bytes, and %d are the most", size, maxEKChain)
	}
	return e, nil
}

// checkAgain verifies what was verified when the TPM enrolled, with what is
// trusted and revoked now.
func (s *state) checkAgain(e *Endorsement) error {
	if len(e.Certificates) == 0 {
		if !s.registry.vouchesFor(e.EK) {
			return refuse(CodeUntrustedTPM, "the TPM has enrolled without an EK certificate, and the registry does not vouch for it any more")
		}
		return nil
	}
	leaf, err := parseCertificate(e.Certificates[0])
	if err != nil {
		return refuse(CodeUntrustedTPM, "EK certificate: %v", err)
	}
	var links []*x509.Certificate
	for _, der := range e.Certificates[1:] {
		link, err := x509.ParseCertificate(der)
		if err != nil {
			return refuse(CodeUntrustedTPM, "link of the EK certificate: %v", err)
		}
		links = append(links, link)
	}
	if _, err := s.checkCertificate(leaf, links); err != nil {
		return refuse(CodeUntrustedTPM, "EK certificate: %v", err)
	}
	return nil
}

// encapsulationKey returns the endorsement key as the TPM has it: the certified
// key in the TCG's template for keys of its kind (EK Credential Profile, annex
// B). Nothing of it is taken from the device, which might name a template by
// which the secret could be had without the EK.
func encapsulationKey(key crypto.PublicKey) (tpm2.LabeledEncapsulationKey, error) {
	var area tpm2.TPMTPublic
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); {
		case bits == 2048 && key.E == 65537:
			area = tpm2.RSAEKTemplate
		case bits == 3072 && key.E == 65537:
			area = ekTemplateRSA3072
		default:
			return nil, fmt.Errorf("EK is RSA with %d bits and the exponent %d: only 2048 and 3072 bits and 65537 are known here", bits, key.E)
		}
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			area = tpm2.ECCEKTemplate
		case elliptic.P384():
			area = ekTemplateP384
		default:
			return nil, fmt.Errorf("EK is on %s: only P-256 and P-384 are known here", key.Curve.Params().Name)
		}
		point, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		size := len(point) / 2
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]},
			Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
		})
	default:
		return nil, fmt.Errorf("EK is a %T", key)
	}
	return tpm2.ImportEncapsulationKey(&area)
}

// The TCG's templates H-3 and H-6. What matters here is the hash of their Names
// and the symmetric algorithm, which protect the secret; for the smaller keys
// they are the same in the low and in the high range.
var (
	ekTemplateP384 = tpm2.TPMTPublic{
		Type:       tpm2.TPMAlgECC,
		NameAlg:    tpm2.TPMAlgSHA384,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aes256, CurveID: tpm2.TPMECCNistP384}),
	}
	ekTemplateRSA3072 = tpm2.TPMTPublic{
		Type:       tpm2.TPMAlgRSA,
		NameAlg:    tpm2.TPMAlgSHA384,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aes256, KeyBits: 3072}),
	}
	aes256 = tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
)
