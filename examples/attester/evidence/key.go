// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"

	"github.com/google/go-tpm/tpm2"
)

// COSE algorithms, RFC 9053 and RFC 8812.
const (
	coseES256 = -7
	coseRS256 = -257
)

// checkKey verifies that the instance key lives in the TPM of the attestation
// key and cannot leave it (TPM2_Certify), and returns what the TPM said.
func checkKey(s *keyStatement, ak crypto.PublicKey, binding []byte, instance *ecdsa.PublicKey) (*tpm2.TPMSAttest, error) {
	if want := coseAlgorithm(ak); s.Algorithm != want {
		return nil, refuse(CodeInvalidEvidence, "alg of the statement is %d, and the AK's is %d", s.Algorithm, want)
	}
	attest, err := checkAttest(ak, tpm2.TPMSTAttestCertify, []byte(s.CertInfo), []byte(s.Signature), binding)
	if err != nil {
		return nil, refuse(CodeInvalidEvidence, "certInfo: %v", err)
	}
	certified, err := attest.Attested.Certify()
	if err != nil {
		return nil, refuse(CodeInvalidEvidence, "certInfo: %v", err)
	}
	// The TPM vouches for a Name, which is a hash over the public area.
	area, err := parse[tpm2.TPMTPublic]([]byte(s.PublicArea))
	if err != nil {
		return nil, refuse(CodeInvalidEvidence, "pubArea: %v", err)
	}
	name, err := tpm2.ObjectName(area)
	if err != nil || !bytes.Equal(name.Buffer, certified.Name.Buffer) {
		return nil, refuse(CodeInvalidEvidence, "pubArea is not what certInfo names")
	}
	if err := checkInstanceKey(area, instance); err != nil {
		return nil, err
	}
	return attest, nil
}

func coseAlgorithm(ak crypto.PublicKey) int64 {
	switch ak.(type) {
	case *ecdsa.PublicKey:
		return coseES256
	case *rsa.PublicKey:
		return coseRS256
	}
	return 0
}

// instanceCurves are the curves of Client Instance Keys, each with its hash.
var instanceCurves = map[tpm2.TPMECCCurve]struct {
	curve elliptic.Curve
	hash  tpm2.TPMIAlgHash
}{
	tpm2.TPMECCNistP256: {elliptic.P256(), tpm2.TPMAlgSHA256},
	tpm2.TPMECCNistP384: {elliptic.P384(), tpm2.TPMAlgSHA384},
}

// checkInstanceKey checks a certified public area: the kind of key, that it was
// made in the TPM and stays there, and that it is the one that signed the request.
func checkInstanceKey(area *tpm2.TPMTPublic, instance *ecdsa.PublicKey) error {
	// Kind.
	if area.Type != tpm2.TPMAlgECC {
		return refuse(CodeUnsupportedKey, "certified key is of type 0x%x, not ECC", uint16(area.Type))
	}
	parameters, err := area.Parameters.ECCDetail()
	if err != nil {
		return refuse(CodeUnsupportedKey, "certified key: %v", err)
	}
	kind, ok := instanceCurves[parameters.CurveID]
	if !ok {
		return refuse(CodeUnsupportedKey, "certified key is on the curve 0x%x", uint16(parameters.CurveID))
	}
	if scheme := parameters.Scheme; scheme.Scheme != tpm2.TPMAlgNull {
		if details, err := scheme.Details.ECDSA(); scheme.Scheme != tpm2.TPMAlgECDSA || err != nil || details.HashAlg != kind.hash {
			return refuse(CodeUnsupportedKey, "certified key is not for ECDSA with its curve's hash")
		}
	}
	if area.NameAlg != tpm2.TPMAlgSHA256 {
		return refuse(CodeUnsupportedKey, "nameAlg of the certified key is 0x%x, not SHA-256", uint16(area.NameAlg))
	}

	// Protection.
	switch a := area.ObjectAttributes; {
	case !a.SignEncrypt || a.Decrypt:
		return refuse(CodeUnsupportedKey, "certified key is not a key for signatures alone")
	case a.Restricted:
		return refuse(CodeUnsupportedKey, "certified key is restricted")
	case !a.FixedTPM || !a.FixedParent:
		return refuse(CodeKeyNotProtected, "certified key is not fixedTPM and fixedParent: it was imported, or can be duplicated")
	case !a.SensitiveDataOrigin:
		return refuse(CodeKeyNotProtected, "certified key is not sensitiveDataOrigin: it was made outside the TPM")
	}

	// Identity.
	certified, err := publicKey(area)
	if err != nil {
		return refuse(CodeInvalidEvidence, "certified key: %v", err)
	}
	if !instance.Equal(certified) {
		return refuse(CodeInvalidEvidence, "certified key is not the one that signed the request")
	}
	return nil
}
