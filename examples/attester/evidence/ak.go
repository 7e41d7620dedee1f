// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// An attestation key (AK) is what a TPM signs statements about itself with. The
// whole of this attester's trust hangs on its being restricted: only then does
// the TPM refuse to sign a text that merely looks like such a statement.

// parseAK reads the public area of an attestation key, and refuses a key whose
// signature would prove nothing. That the TPM has a key with these very
// attributes follows from the activation: the challenge is for its Name, which
// is a hash over all of this.
func parseAK(public []byte) (*tpm2.TPMTPublic, crypto.PublicKey, error) {
	area, err := parse[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, nil, refuse(CodeInvalidAK, "public area of the AK: %v", err)
	}
	if area.NameAlg != tpm2.TPMAlgSHA256 {
		return nil, nil, refuse(CodeInvalidAK, "nameAlg of the AK is 0x%x, not SHA-256", uint16(area.NameAlg))
	}
	switch a := area.ObjectAttributes; {
	case !a.FixedTPM || !a.FixedParent:
		return nil, nil, refuse(CodeInvalidAK, "AK is not fixedTPM and fixedParent: it can leave the TPM")
	case !a.SensitiveDataOrigin:
		return nil, nil, refuse(CodeInvalidAK, "AK is not sensitiveDataOrigin: it was made outside the TPM")
	case !a.Restricted:
		return nil, nil, refuse(CodeInvalidAK, "AK is not restricted: it signs what it is given")
	case !a.SignEncrypt || a.Decrypt:
		return nil, nil, refuse(CodeInvalidAK, "AK is not a key for signatures alone")
	}
	if err := checkAKScheme(area); err != nil {
		return nil, nil, refuse(CodeInvalidAK, "%v", err)
	}
	key, err := publicKey(area)
	if err != nil {
		return nil, nil, refuse(CodeInvalidAK, "public key of the AK: %v", err)
	}
	return area, key, nil
}

// checkAKScheme allows ECDSA on P-256 and RSASSA with 2048 bits or more, both
// with SHA-256.
func checkAKScheme(area *tpm2.TPMTPublic) error {
	switch area.Type {
	case tpm2.TPMAlgECC:
		parameters, err := area.Parameters.ECCDetail()
		if err != nil {
			return err
		}
		scheme, err := parameters.Scheme.Details.ECDSA()
		if parameters.Scheme.Scheme != tpm2.TPMAlgECDSA || err != nil || scheme.HashAlg != tpm2.TPMAlgSHA256 {
			return fmt.Errorf("AK does not sign with ECDSA and SHA-256")
		}
		if parameters.CurveID != tpm2.TPMECCNistP256 {
			return fmt.Errorf("AK is on the curve 0x%x, not P-256", uint16(parameters.CurveID))
		}
	case tpm2.TPMAlgRSA:
		parameters, err := area.Parameters.RSADetail()
		if err != nil {
			return err
		}
		scheme, err := parameters.Scheme.Details.RSASSA()
		if parameters.Scheme.Scheme != tpm2.TPMAlgRSASSA || err != nil || scheme.HashAlg != tpm2.TPMAlgSHA256 {
			return fmt.Errorf("AK does not sign with RSASSA and SHA-256")
		}
		if parameters.KeyBits < 2048 {
			return fmt.Errorf("AK is RSA with %d bits", parameters.KeyBits)
		}
	default:
		return fmt.Errorf("AK is of type 0x%x, not ECC or RSA", uint16(area.Type))
	}
	return nil
}

// publicKey returns the key in a public area. A point that is not on the curve
// is refused.
func publicKey(area *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if _, err := key.ECDH(); err != nil {
			return nil, err
		}
	case *rsa.PublicKey:
		// The size in the parameters is a claim; this is the key.
		if bits := key.N.BitLen(); bits < 2048 || bits > 4096 {
			return nil, fmt.Errorf("RSA with %d bits", bits)
		}
		if key.E < 65537 || key.E%2 == 0 {
			return nil, fmt.Errorf("RSA with the exponent %d", key.E)
		}
	}
	return key, nil
}
