// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// sign signs a digest (TPM2_Sign).
func (k *key) sign(digest []byte) tpm2.TPMTSignature {
	k.d.t.Helper()
	rsp, err := tpm2.Sign{
		KeyHandle:  k.auth(),
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(k.d.tpm)
	if err != nil {
		k.d.t.Fatal(err)
	}
	return rsp.Signature
}

// A key signs JWS as go-jose wants it.

func (k *key) Public() *jose.JSONWebKey        { return &jose.JSONWebKey{Key: k.public} }
func (k *key) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{k.alg()} }
func (k *key) size() int                       { return (k.public.(*ecdsa.PublicKey).Params().BitSize + 7) / 8 }
func (k *key) alg() jose.SignatureAlgorithm {
	return map[int]jose.SignatureAlgorithm{32: jose.ES256, 48: jose.ES384}[k.size()]
}
func (k *key) SignPayload(payload []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	hash := map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384}[k.size()].New()
	hash.Write(payload)
	signature := k.sign(hash.Sum(nil))
	ecc, err := signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	r, s := ecc.SignatureR.Buffer, ecc.SignatureS.Buffer
	size := k.size()
	raw := make([]byte, 2*size)
	copy(raw[size-len(r):], r)
	copy(raw[2*size-len(s):], s)
	return raw, nil
}

func (k *key) thumbprint() string {
	k.d.t.Helper()
	thumbprint, err := keystore.Thumbprint(k.public)
	if err != nil {
		k.d.t.Fatal(err)
	}
	return thumbprint
}

func bindingOf(challenge, thumbprint string) []byte {
	digest := sha256.Sum256([]byte(challenge + "." + thumbprint))
	return digest[:]
}

// A proof is evidence before it is encoded.
type proof struct {
	format    any
	statement object // attStmt
	quotes    []object
	log       []byte
	more      object // other members of tpmAttestation
	omit      bool   // leave out what is said of the platform
	attObj    []byte // instead of format and statement
}

// prove makes good evidence for a key.
func (d *device) prove(k *key, challenge string, chain [][]byte, pcrs []int) *proof {
	d.t.Helper()
	ak := d.ak()
	defer ak.flush()
	binding := bindingOf(challenge, k.thumbprint())
	certInfo, signature := d.certify(ak, k, binding)
	alg := -7
	if _, ok := ak.public.(*ecdsa.PublicKey); !ok {
		alg = -257
	}
	return &proof{
		format:    "tpm",
		statement: object{"ver": "2.0", "alg": alg, "x5c": chain, "sig": signature, "certInfo": certInfo, "pubArea": k.area},
		quotes:    []object{d.quote(ak, tpm2.TPMAlgSHA256, pcrs, binding)},
		log:       d.log,
	}
}

func (p *proof) encode(t testing.TB) object {
	t.Helper()
	attObj := p.attObj
	if attObj == nil {
		attObj = encodeCBOR(t, object{"fmt": p.format, "attStmt": p.statement})
	}
	evidence := object{"attObj": base64.RawURLEncoding.EncodeToString(attObj)}
	if !p.omit {
		platform := object{"quotes": p.quotes}
		if p.log != nil {
			platform["tcgEventLog"] = p.log
		}
		maps.Copy(platform, p.more)
		evidence["tpmAttestation"] = platform
	}
	return evidence
}

func encodeCBOR(t testing.TB, v any) []byte {
	t.Helper()
	data, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func clone(o object) object { return maps.Clone(o) }
