package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/sha256" // ES256, Names
	_ "crypto/sha512" // ES384
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// algorithm is a JWS algorithm in the TPM's and in Go's terms.
type algorithm struct {
	jws     string
	curve   tpm2.TPMECCCurve
	hashAlg tpm2.TPMIAlgHash
	goCurve elliptic.Curve
	hash    crypto.Hash
	size    int // bytes of r, s and each coordinate
}

var algorithms = []algorithm{
	{"ES256", tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, elliptic.P256(), crypto.SHA256, 32},
	{"ES384", tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, elliptic.P384(), crypto.SHA384, 48},
}

func findAlgorithm(parameters *tpm2.TPMSECCParms) (algorithm, error) {
	for _, a := range algorithms {
		if a.curve != parameters.CurveID {
			continue
		}
		if parameters.Scheme.Scheme == tpm2.TPMAlgNull {
			return a, nil
		}
		if scheme, err := parameters.Scheme.Details.ECDSA(); err == nil && scheme.HashAlg == a.hashAlg {
			return a, nil
		}
		return algorithm{}, fmt.Errorf("is not for ECDSA with the hash of %s", a.jws)
	}
	return algorithm{}, fmt.Errorf("is on the curve 0x%x: only P-256 and P-384 are known here", uint16(parameters.CurveID))
}

// publicKey pads the coordinates, which a TPM may give without leading zeros,
// and refuses a point that is not on the curve.
func (a algorithm) publicKey(point *tpm2.TPMSECCPoint) (*ecdsa.PublicKey, error) {
	x, y := bytes.TrimLeft(point.X.Buffer, "\x00"), bytes.TrimLeft(point.Y.Buffer, "\x00")
	if len(x) > a.size || len(y) > a.size {
		return nil, errors.New("has a public point that is too large")
	}
	uncompressed := make([]byte, 1+2*a.size)
	uncompressed[0] = 4
	copy(uncompressed[1+a.size-len(x):], x)
	copy(uncompressed[1+2*a.size-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(a.goCurve, uncompressed)
	if err != nil {
		return nil, fmt.Errorf("has no public point: %w", err)
	}
	return public, nil
}
