// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-attestation/oid"
	ekx509 "github.com/google/go-attestation/x509"
)

// CA is the attester's own certification authority for attestation keys. With
// its certificate a device shows that it has enrolled; nobody else need trust it.
type CA struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// akLifetime is that of a certificate for an attestation key. After it, and
// when its EK was blocked, the device has to enrol anew.
const akLifetime = 30 * 24 * time.Hour

// oidEndorsement is an extension of our own: what was verified when the TPM
// enrolled, a SEQUENCE of OCTET STRINGs with the certificate of its endorsement
// key and links from it; empty if the registry alone has vouched for the key. Only
// the attester that has put it there reads it.
//
// It is nobody else's: it is the UUID a85832cc-0edf-4d99-ae80-30e1d2c396e1 below an
// arc that Microsoft gives to everyone for that ("Obtaining an Object Identifier").
// Below 2.25 (ITU-T X.667) a UUID is one arc of 128 bits, which Go and others cannot
// read.
var oidEndorsement = asn1.ObjectIdentifier{1, 2, 840, 113556, 1, 8000, 2554, 43096, 13004, 3807, 19865, 44672, 3203538, 12818145}

// extKeyUsageAK is tcg-kp-AIKCertificate, which go-attestation has no name for.
var extKeyUsageAK = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// NewCA returns a CA with that certificate and key.
func NewCA(certificate *x509.Certificate, key crypto.Signer) (*CA, error) {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("evidence: the CA's certificate is for another key")
	}
	if !certificate.IsCA || !certificate.BasicConstraintsValid {
		return nil, errors.New("evidence: the CA's certificate is not that of a CA")
	}
	return &CA{certificate: certificate, key: key}, nil
}

// CreateCA makes a CA with a new key, valid for ten years from now.
func CreateCA(now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Client Attester, attestation keys"},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return NewCA(certificate, key)
}

// Certificate returns the CA's certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.certificate }

// Key returns the CA's private key.
func (ca *CA) Key() crypto.Signer { return ca.key }

// issue certifies an attestation key of the TPM with that endorsement key (TCG
// EK Credential Profile and W3C Web Authentication, section 8.3.1). The
// certificate itself says which EK it belongs to, and why that is taken for a TPM's,
// so that the attester has to remember nothing and can look again each time.
func (ca *CA) issue(ak crypto.PublicKey, e *Endorsement, now time.Time) ([]byte, error) {
	name, err := akName(e)
	if err != nil {
		return nil, err
	}
	endorsement, err := asn1.Marshal(e.Certificates)
	if err != nil {
		return nil, err
	}
	from := now.Add(-time.Minute) // for devices whose clock is late
	template := &x509.Certificate{
		NotBefore:             from,
		NotAfter:              earliest(from.Add(akLifetime), ca.certificate.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{extKeyUsageAK},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{name, {Id: oidEndorsement, Value: endorsement}},
	}
	return x509.CreateCertificate(rand.Reader, template, ca.certificate, ak, ca.key)
}

// akName is the subjectAltName of an attestation key's certificate: the TPM as its
// maker describes it, where there is his certificate, and then the EK. The order
// matters to verifiers of Web Authentication that read the first name alone.
func akName(e *Endorsement) (pkix.Extension, error) {
	var names []*ekx509.SubjectAltName
	if len(e.Certificates) > 0 {
		names = append(names, &ekx509.SubjectAltName{DirectoryNames: []pkix.Name{{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oid.TPMManufacturer, Value: e.Manufacturer},
			{Type: oid.TPMModel, Value: e.Model},
			{Type: oid.TPMVersion, Value: e.Version},
		}}}})
	}
	names = append(names, &ekx509.SubjectAltName{
		PermanentIdentifiers: []ekx509.PermanentIdentifier{{IdentifierValue: e.EK, Assigner: oid.EKPermIDSHA256}},
	})
	var sequence []asn1.RawValue
	for _, name := range names { // one at a time: MarshalSubjectAltName has an order of its own
		extension, err := ekx509.MarshalSubjectAltName(name, true)
		if err != nil {
			return pkix.Extension{}, err
		}
		var one []asn1.RawValue
		if _, err := asn1.Unmarshal(extension.Value, &one); err != nil {
			return pkix.Extension{}, err
		}
		sequence = append(sequence, one...)
	}
	value, err := asn1.Marshal(sequence)
	return pkix.Extension{Id: oid.SubjectAltName, Critical: true, Value: value}, err
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// verify checks that der is a certificate that issue has made, and valid, and
// returns the attestation key and why its TPM was taken for genuine.
func (ca *CA) verify(der []byte, now time.Time) (ak crypto.PublicKey, e *Endorsement, err error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case certificate.CheckSignatureFrom(ca.certificate) != nil:
		return nil, nil, errors.New("was not issued here")
	case now.Before(certificate.NotBefore) || now.After(certificate.NotAfter):
		return nil, nil, fmt.Errorf("is valid from %v to %v", certificate.NotBefore, certificate.NotAfter)
	case certificate.IsCA || !slices.ContainsFunc(certificate.UnknownExtKeyUsage, extKeyUsageAK.Equal):
		return nil, nil, errors.New("is not for an attestation key")
	}
	if e, err = readEndorsement(certificate.Extensions); err != nil {
		return nil, nil, err
	}
	return certificate.PublicKey, e, nil
}

// readEndorsement reads back what issue has written.
func readEndorsement(extensions []pkix.Extension) (*Endorsement, error) {
	var e Endorsement
	verified := false
	for _, extension := range extensions {
		switch {
		case extension.Id.Equal(oidEndorsement):
			if rest, err := asn1.Unmarshal(extension.Value, &e.Certificates); err != nil || len(rest) > 0 {
				return nil, errors.New("does not say whose word was taken for the EK")
			}
			verified = true
		case extension.Id.Equal(oid.SubjectAltName):
			name, err := ekx509.ParseSubjectAltName(extension)
			if err != nil {
				return nil, err
			}
			for _, id := range name.PermanentIdentifiers {
				if id.Assigner.Equal(oid.EKPermIDSHA256) && isFingerprint(id.IdentifierValue) {
					e.EK = id.IdentifierValue
				}
			}
		}
	}
	switch {
	case e.EK == "":
		return nil, errors.New("does not name the EK")
	case !verified:
		return nil, errors.New("does not say whose word was taken for the EK")
	}
	return &e, nil
}
