// SPDX-License-Identifier: Apache-2.0

package keyfile

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

// Algorithm is a JWS algorithm in the TPM's and in Go's terms.
type Algorithm struct {
	JWS            string
	Curve          tpm2.TPMECCCurve
	HashAlg        tpm2.TPMIAlgHash
	goCurve        elliptic.Curve
	Hash           crypto.Hash
	CoordinateSize int // bytes, also of r and s
}

// Algorithms are those that keys can have.
var Algorithms = []Algorithm{
	{"ES256", tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, elliptic.P256(), crypto.SHA256, 32},
	{"ES384", tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, elliptic.P384(), crypto.SHA384, 48},
}

func findAlgorithm(parameters *tpm2.TPMSECCParms) (Algorithm, error) {
	for _, a := range Algorithms {
		if a.Curve != parameters.CurveID {
			continue
		}
		if parameters.Scheme.Scheme == tpm2.TPMAlgNull {
			return a, nil
		}
		if scheme, err := parameters.Scheme.Details.ECDSA(); err == nil && scheme.HashAlg == a.HashAlg {
			return a, nil
		}
		return Algorithm{}, unsupported("is not for ECDSA with the hash of %s", a.JWS)
	}
	return Algorithm{}, unsupported("is on the curve 0x%x: only P-256 and P-384 are known here", uint16(parameters.CurveID))
}

// publicKey pads the coordinates, which a TPM may give without leading zeros,
// and refuses a point that is not on the curve.
func (a Algorithm) publicKey(point *tpm2.TPMSECCPoint) (*ecdsa.PublicKey, error) {
	x, y := bytes.TrimLeft(point.X.Buffer, "\x00"), bytes.TrimLeft(point.Y.Buffer, "\x00")
	if len(x) > a.CoordinateSize || len(y) > a.CoordinateSize {
		return nil, errors.New("has a public point that is too large")
	}
	uncompressed := make([]byte, 1+2*a.CoordinateSize)
	uncompressed[0] = 4
	copy(uncompressed[1+a.CoordinateSize-len(x):], x)
	copy(uncompressed[1+2*a.CoordinateSize-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(a.goCurve, uncompressed)
	if err != nil {
		return nil, fmt.Errorf("has no public point: %w", err)
	}
	return public, nil
}
