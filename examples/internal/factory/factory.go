// SPDX-License-Identifier: Apache-2.0

// Package factory does to a simulated device what its makers would do to a real
// one: it certifies the endorsement key, and boots firmware that measures what
// it runs. It is for demonstrations and tests.
package factory

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-attestation/oid"
	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TPMMaker is a maker of TPMs: a CA for endorsement keys.
type TPMMaker struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
	now  time.Time
}

// NewTPMMaker makes a CA that is valid from a year before now until 20 years
// after it, as are the certificates that it issues.
func NewTPMMaker(now time.Time) (*TPMMaker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Example TPM maker, root CA"},
		NotBefore:             now.AddDate(-1, 0, 0),
		NotAfter:              now.AddDate(20, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	return &TPMMaker{Root: root, key: key, now: now}, err
}

// Issuer makes a CA that the maker has certified. change, if not nil, may spoil its
// certificate, which is the Root of what is returned.
func (m *TPMMaker) Issuer(name string, change func(*x509.Certificate)) (*TPMMaker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             m.Root.NotBefore,
		NotAfter:              m.Root.NotAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.Root, &key.PublicKey, m.key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &TPMMaker{Root: certificate, key: key, now: m.now}, err
}

// Key returns the CA's private key.
func (m *TPMMaker) Key() crypto.Signer { return m.key }

// Certify issues an endorsement certificate (TCG EK Credential Profile, section
// 3.2), DER. change, if not nil, may spoil it.
func (m *TPMMaker) Certify(ek crypto.PublicKey, change func(*x509.Certificate)) ([]byte, error) {
	name, err := ekx509.MarshalSubjectAltName(&ekx509.SubjectAltName{
		DirectoryNames: []pkix.Name{{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oid.TPMManufacturer, Value: "id:4578546D"},
			{Type: oid.TPMModel, Value: "Example TPM"},
			{Type: oid.TPMVersion, Value: "id:00010002"},
		}}},
	}, true)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		NotBefore:             m.Root.NotBefore,
		NotAfter:              m.Root.NotAfter,
		KeyUsage:              x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{oid.EKCertificate},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{name},
	}
	if _, ok := ek.(*rsa.PublicKey); ok {
		template.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	if change != nil {
		change(template)
	}
	return x509.CreateCertificate(rand.Reader, template, m.Root, ek, m.key)
}

// Where a TPM keeps the certificate of its ECC P-256 endorsement key (TCG EK
// Credential Profile, section 2.2.1.4).
const nvECCCertificate = tpm2.TPMHandle(0x01c0000a)

// Endorse certifies a TPM's ECC endorsement key (template L-2) and writes the
// certificate into the TPM, as its maker does. It returns the public key.
func (m *TPMMaker) Endorse(tpm transport.TPM) (crypto.PublicKey, error) {
	ek, err := createPrimary(tpm, tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate)
	if err != nil {
		return nil, fmt.Errorf("factory: endorsement key: %w", err)
	}
	key, err := tpm2.Pub(*ek)
	if err != nil {
		return nil, err
	}
	certificate, err := m.Certify(key, nil)
	if err != nil {
		return nil, err
	}
	return key, WriteNV(tpm, nvECCCertificate, certificate)
}

// StorageRoot returns the public area of a TPM's storage root key, which the
// maker of a device puts into his records: the TCG's template H-2, as TSS2 key
// files mean it.
func StorageRoot(tpm transport.TPM) (*tpm2.TPMTPublic, error) {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	area, err := createPrimary(tpm, tpm2.TPMRHOwner, template)
	if err != nil {
		return nil, fmt.Errorf("factory: storage root key: %w", err)
	}
	return area, nil
}

// createPrimary returns the public area of a primary key and keeps no handle.
func createPrimary(tpm transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (*tpm2.TPMTPublic, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	defer tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(tpm)
	return rsp.OutPublic.Contents()
}

// WriteNV defines an NV index that everybody can read, and fills it.
func WriteNV(tpm transport.TPM, index tpm2.TPMHandle, data []byte) error {
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	public := tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex:    index,
		NameAlg:    tpm2.TPMAlgSHA256,
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, PPRead: true, NoDA: true},
		DataSize:   uint16(len(data)),
	})
	if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: public}).Execute(tpm); err != nil {
		return fmt.Errorf("factory: define NV index 0x%x: %w", uint32(index), err)
	}
	const chunk = 512 // TPMs take at least that much at once
	for offset := 0; offset < len(data); offset += chunk {
		read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm) // its name changes with the first write
		if err != nil {
			return fmt.Errorf("factory: read NV index 0x%x: %w", uint32(index), err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: owner,
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: read.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data[offset:min(offset+chunk, len(data))]},
			Offset:     uint16(offset),
		}.Execute(tpm)
		if err != nil {
			return fmt.Errorf("factory: write NV index 0x%x: %w", uint32(index), err)
		}
	}
	return nil
}
