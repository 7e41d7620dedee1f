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

// An Endorsement is what a verified EK certificate says.
type Endorsement struct {
	// EK identifies the TPM: the SHA-256 digest of the endorsement key's
	// SubjectPublicKeyInfo, in hexadecimal. It must stay with the attester:
	// whoever else learns it can recognize the device.
	EK                           string
	Manufacturer, Model, Version string // of the TPM
	key                          crypto.PublicKey
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

// checkEK finds the certificate for the endorsement key ek (a DER
// SubjectPublicKeyInfo) among those that the device sent, and verifies it.
func (v *Verifier) checkEK(ek []byte, certificates [][]byte) (*Endorsement, error) {
	if len(certificates) == 0 {
		return nil, refuse(CodeUntrustedTPM, "no EK certificate")
	}
	if len(certificates) > maxCertificates {
		return nil, refuse(CodeUntrustedTPM, "%d EK certificates", len(certificates))
	}
	key, err := x509.ParsePKIXPublicKey(ek)
	if err != nil {
		return nil, refuse(CodeInvalidRequest, "ek: %v", err)
	}
	certificate, err := certificateFor(key, certificates)
	if err != nil {
		return nil, refuse(CodeUntrustedTPM, "%v", err)
	}
	if !certificate.HasEkcExtendedKeyUsage {
		return nil, refuse(CodeUntrustedTPM, "EK certificate is not for an EK: no extended key usage 2.23.133.8.1")
	}
	if err := v.cfg.Roots.verify(certificate.Certificate, v.cfg.Now()); err != nil {
		return nil, refuse(CodeUntrustedTPM, "EK certificate: %v", err)
	}
	id, err := fingerprint(key)
	if err != nil {
		return nil, refuse(CodeUntrustedTPM, "ek: %v", err)
	}
	return &Endorsement{
		EK:           id,
		Manufacturer: certificate.TpmManufacturer,
		Model:        certificate.TpmModel,
		Version:      certificate.TpmVersion,
		key:          key,
	}, nil
}

// certificateFor returns the certificate for key. It must follow the TCG EK
// Credential Profile, section 3.2; go-attestation checks that.
func certificateFor(key crypto.PublicKey, certificates [][]byte) (*ekx509.EKCertificate, error) {
	for _, der := range certificates {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("EK certificate: %w", err)
		}
		if public, ok := parsed.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(key) {
			certificate, err := ekx509.ToEKCertificate(parsed)
			if err != nil {
				return nil, fmt.Errorf("EK certificate: %w", err)
			}
			return certificate, nil
		}
	}
	return nil, errors.New("no EK certificate is for ek")
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
