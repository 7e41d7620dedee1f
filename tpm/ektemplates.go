// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// ekTemplate is a way to make an endorsement key, with the NV indexes of the
// certificate for it, and of what the maker of a TPM may have written there to
// make the key in another way (TCG EK Credential Profile, "Default EK Templates"
// and "NV Index Assignments").
type ekTemplate struct {
	certificate tpm2.TPMHandle
	template    tpm2.TPMHandle // TPMT_PUBLIC to be used instead of public
	nonce       tpm2.TPMHandle // for the unique field; 0: none is defined
	public      tpm2.TPMTPublic
}

// ekTemplates are in order of preference: the first is the one that nearly every
// TPM comes with the certificate of, and that any can make. The H templates for
// P-521, SM2 and RSA-4096 are left out, since TPMs with just these are not known.
var ekTemplates = []ekTemplate{
	{0x01c00002, 0x01c00004, 0x01c00003, tpm2.RSAEKTemplate},         // L-1
	{0x01c0000a, 0x01c0000c, 0x01c0000b, tpm2.ECCEKTemplate},         // L-2
	{0x01c00012, 0x01c00013, 0, highSHA256.rsa(2048)},                // H-1
	{0x01c00014, 0x01c00015, 0, highSHA256.ecc(tpm2.TPMECCNistP256)}, // H-2
	{0x01c00016, 0x01c00017, 0, highSHA384.ecc(tpm2.TPMECCNistP384)}, // H-3
	{0x01c0001c, 0x01c0001d, 0, highSHA384.rsa(3072)},                // H-6
}

// makes reports whether the template's keys are of the same kind as key.
func (t ekTemplate) makes(key crypto.PublicKey) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		parameters, err := t.public.Parameters.RSADetail()
		return err == nil && key.N.BitLen() == int(parameters.KeyBits)
	case *ecdsa.PublicKey:
		parameters, err := t.public.Parameters.ECCDetail()
		if err != nil {
			return false
		}
		curve, err := parameters.CurveID.Curve()
		return err == nil && key.Curve == curve
	}
	return false
}

// adapt returns the template as the maker of this TPM has adapted it. A template
// in NV stands for itself; a nonce goes into the unique field, filled up with
// zeros (EK Credential Profile 2.5, section 2.2.1.6). What is no template for a
// key of this kind is passed over.
func (t ekTemplate) adapt(template, nonce []byte) tpm2.TPMTPublic {
	public := t.public
	if adapted, err := tpm2.Unmarshal[tpm2.TPMTPublic](template); err == nil && t.isEK(adapted) {
		public = *adapted
	}
	if len(nonce) == 0 {
		return public
	}
	fill := func(size int) []byte { return append(slices.Clone(nonce), make([]byte, max(0, size-len(nonce)))...) }
	if parameters, err := public.Parameters.RSADetail(); err == nil {
		if size := int(parameters.KeyBits) / 8; len(nonce) <= size {
			public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: fill(size)})
		}
	} else if parameters, err := public.Parameters.ECCDetail(); err == nil {
		curve, err := parameters.CurveID.Curve()
		if err == nil && len(nonce) <= curve.Params().BitSize/8 {
			size := curve.Params().BitSize / 8
			public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: fill(size)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, size)},
			})
		}
	}
	return public
}

// isEK reports whether a template makes endorsement keys of the same kind: keys
// of this TPM alone that decrypt what credential activation does, and nothing
// else.
func (t ekTemplate) isEK(template *tpm2.TPMTPublic) bool {
	a := template.ObjectAttributes
	if template.Type != t.public.Type || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return false
	}
	if ours, err := t.public.Parameters.RSADetail(); err == nil {
		theirs, err := template.Parameters.RSADetail()
		return err == nil && ours.KeyBits == theirs.KeyBits
	}
	ours, err := t.public.Parameters.ECCDetail()
	if err != nil {
		return false
	}
	theirs, err := template.Parameters.ECCDetail()
	return err == nil && ours.CurveID == theirs.CurveID
}

// highRange is what templates of the high range with one hash share. Unlike the
// low ones they have userWithAuth, so that their keys can be used with the empty
// authorization value that they are made with, and the policy is never needed.
type highRange struct {
	hash    tpm2.TPMIAlgHash
	aes     tpm2.TPMKeyBits
	policyB []byte // PolicySecret(endorsement) or PolicyAuthorizeNV
}

var (
	highSHA256 = highRange{tpm2.TPMAlgSHA256, 128, []byte("" +
		"\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3" +
		"\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0")}
	highSHA384 = highRange{tpm2.TPMAlgSHA384, 256, []byte("" +
		"\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a" +
		"\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca" +
		"\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12")}
)

func (h highRange) rsa(bits tpm2.TPMKeyBits) tpm2.TPMTPublic {
	return h.template(tpm2.TPMAlgRSA,
		tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: h.symmetric(), KeyBits: bits}),
		tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{}))
}

func (h highRange) ecc(curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	return h.template(tpm2.TPMAlgECC,
		tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: h.symmetric(), CurveID: curve}),
		tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}))
}

func (h highRange) symmetric() tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, h.aes),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

func (h highRange) template(kind tpm2.TPMIAlgPublic, parameters tpm2.TPMUPublicParms, unique tpm2.TPMUPublicID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    kind,
		NameAlg: h.hash,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			UserWithAuth:        true,
			AdminWithPolicy:     true,
			Restricted:          true,
			Decrypt:             true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: h.policyB},
		Parameters: parameters,
		Unique:     unique,
	}
}
