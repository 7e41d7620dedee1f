// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/google/go-attestation/oid"
	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"
)

// A forger has a certificate of the attester for an attestation key that is in
// no TPM, and signs with it what he likes. That cannot happen; but with him each
// check behind the signature can be seen to work alone.
type forger struct {
	t     testing.TB
	ak    *ecdsa.PrivateKey
	chain [][]byte
}

// newForger makes a forger. change spoils the certificate that he has.
func (w *world) newForger(change func(*x509.Certificate)) *forger {
	w.t.Helper()
	f := &forger{t: w.t, ak: newKey(w.t, elliptic.P256())}
	f.chain = [][]byte{w.akCertificate(&f.ak.PublicKey, w.ca.Certificate(), w.ca.Key(), change)}
	return f
}

// akCertificate makes a certificate like the attester's own.
func (w *world) akCertificate(ak crypto.PublicKey, issuer *x509.Certificate, key crypto.Signer, change func(*x509.Certificate)) []byte {
	w.t.Helper()
	template := &x509.Certificate{
		NotBefore:             w.now.Add(-time.Hour),
		NotAfter:              w.now.Add(time.Hour),
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{w.akName(w.ek), w.akEndorsement()},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, ak, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// akEndorsement says whose word was taken for the TPM: that of the maker's
// certificate.
func (w *world) akEndorsement() pkix.Extension {
	w.t.Helper()
	value, err := asn1.Marshal(w.d.enrolment()["ekCerts"])
	if err != nil {
		w.t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113556, 1, 8000, 2554, 43096, 13004, 3807, 19865, 44672, 3203538, 12818145}, Value: value}
}

// akName is the name in the certificate for the AK of the TPM with that EK.
func (w *world) akName(ek string) pkix.Extension {
	w.t.Helper()
	name, err := ekx509.MarshalSubjectAltName(&ekx509.SubjectAltName{
		PermanentIdentifiers: []ekx509.PermanentIdentifier{{IdentifierValue: ek, Assigner: oid.EKPermIDSHA256}},
	}, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return name
}

// sign returns a TPMT_SIGNATURE.
func (f *forger) sign(text []byte) []byte {
	f.t.Helper()
	digest := sha256.Sum256(text)
	r, s, err := ecdsa.Sign(rand.Reader, f.ak, digest[:])
	if err != nil {
		f.t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
		}),
	})
}

// attest makes up what a TPM says of a key.
func attestFor(t testing.TB, area *tpm2.TPMTPublic, binding []byte) *tpm2.TPMSAttest {
	t.Helper()
	name, err := tpm2.ObjectName(area)
	if err != nil {
		t.Fatal(err)
	}
	return &tpm2.TPMSAttest{
		Magic:     tpm2.TPMGeneratedValue,
		Type:      tpm2.TPMSTAttestCertify,
		ExtraData: tpm2.TPM2BData{Buffer: binding},
		Attested:  tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: *name}),
	}
}

// areaOf is the public area that a key would have if it were in a TPM.
func areaOf(t testing.TB, public *ecdsa.PublicKey) *tpm2.TPMTPublic {
	t.Helper()
	curve := map[elliptic.Curve]tpm2.TPMECCCurve{
		elliptic.P256(): tpm2.TPMECCNistP256, elliptic.P384(): tpm2.TPMECCNistP384, elliptic.P521(): tpm2.TPMECCNistP521,
	}[public.Curve]
	hash := map[elliptic.Curve]tpm2.TPMIAlgHash{
		elliptic.P256(): tpm2.TPMAlgSHA256, elliptic.P384(): tpm2.TPMAlgSHA384, elliptic.P521(): tpm2.TPMAlgSHA512,
	}[public.Curve]
	area := eccKey(attributesOfCI, curve, hash, "")
	point, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	size := len(point) / 2
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
	})
	return &area
}

// A forgery is a statement of a forger about a key in software. Parts that are
// left nil are made to fit.
type forgery struct {
	key       *ecdsa.PrivateKey
	area      *tpm2.TPMTPublic
	attest    *tpm2.TPMSAttest
	certInfo  []byte
	signature []byte
}

// statement completes a forgery.
func (f *forger) statement(g *forgery, binding []byte) object {
	f.t.Helper()
	if g.area == nil {
		g.area = areaOf(f.t, &g.key.PublicKey)
	}
	if g.attest == nil {
		g.attest = attestFor(f.t, g.area, binding)
	}
	if g.certInfo == nil {
		g.certInfo = tpm2.Marshal(*g.attest)
	}
	if g.signature == nil {
		g.signature = f.sign(g.certInfo)
	}
	return object{
		"ver": "2.0", "alg": -7, "x5c": f.chain, "sig": g.signature,
		"certInfo": g.certInfo, "pubArea": tpm2.Marshal(*g.area),
	}
}
