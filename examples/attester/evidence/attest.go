// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// checkAttest returns the TPMS_ATTEST of the given kind that an attestation key
// has signed over binding. What kind it is must be checked: a TPM makes a quote
// and a certification with the same key and the same qualifying data.
func checkAttest(key crypto.PublicKey, kind tpm2.TPMST, text, signature, binding []byte) (*tpm2.TPMSAttest, error) {
	if err := checkSignature(key, text, signature); err != nil {
		return nil, err
	}
	attest, err := parse[tpm2.TPMSAttest](text)
	switch {
	case err != nil:
		return nil, err
	case attest.Magic != tpm2.TPMGeneratedValue:
		return nil, errors.New("was not made by a TPM: wrong magic")
	case attest.Type != kind:
		return nil, errors.New("is another kind of statement")
	case subtle.ConstantTimeCompare(attest.ExtraData.Buffer, binding) != 1:
		return nil, errors.New("is not bound to this challenge and key")
	}
	return attest, nil
}

// checkSignature verifies a TPMT_SIGNATURE with SHA-256.
func checkSignature(key crypto.PublicKey, text, signature []byte) error {
	parsed, err := parse[tpm2.TPMTSignature](signature)
	if err != nil {
		return errors.New("signature is no TPMT_SIGNATURE")
	}
	digest := sha256.Sum256(text)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		ecc, err := parsed.Signature.ECDSA()
		if parsed.SigAlg != tpm2.TPMAlgECDSA || err != nil || ecc.Hash != tpm2.TPMAlgSHA256 {
			return errors.New("signature is not ECDSA with SHA-256, as the AK's are")
		}
		r, s := new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)
		if !ecdsa.Verify(key, digest[:], r, s) {
			return errors.New("signature of the AK does not verify")
		}
	case *rsa.PublicKey:
		ssa, err := parsed.Signature.RSASSA()
		if parsed.SigAlg != tpm2.TPMAlgRSASSA || err != nil || ssa.Hash != tpm2.TPMAlgSHA256 {
			return errors.New("signature is not RSASSA with SHA-256, as the AK's are")
		}
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], ssa.Sig.Buffer) != nil {
			return errors.New("signature of the AK does not verify")
		}
	default:
		return errors.New("AK is neither ECDSA nor RSA")
	}
	return nil
}
