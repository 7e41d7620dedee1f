// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// issue makes a certificate for a public key, of a CA that nobody knows.
func issue(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
		Issuer:       pkix.Name{CommonName: "test CA"},
		// As long as the certificates of vendors are, so that reading takes
		// more than one command.
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: bytes.Repeat([]byte{'x'}, 900)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, ca)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// certify issues a certificate for an attestation key.
func certify(t testing.TB, ak []byte) []byte {
	t.Helper()
	public, err := attest.ParseAKPublic(ak)
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, public.Public)
}

// makePrimary makes an endorsement key.
func makePrimary(t testing.TB, conn transport.TPM, template tpm2.TPMTPublic) (tpm2.NamedHandle, crypto.PublicKey) {
	t.Helper()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	area, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, public
}

func endorsementPublic(t testing.TB, conn transport.TPM, template tpm2.TPMTPublic) crypto.PublicKey {
	t.Helper()
	ek, public := makePrimary(t, conn, template)
	if _, err := (tpm2.FlushContext{FlushHandle: ek.Handle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	return public
}

// ownerNV is how a certificate usually lies in a TPM: readable by all.
var ownerNV = tpm2.TPMANV{OwnerWrite: true, AuthWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}

// defineNV defines an NV index of a size; with content it writes it there.
func defineNV(t testing.TB, conn transport.TPM, index tpm2.TPMHandle, attributes tpm2.TPMANV, size int, content []byte) {
	t.Helper()
	public := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(size)}
	_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	writeNV(t, conn, index, content)
}

// writeNV writes to an NV index as the owner.
func writeNV(t testing.TB, conn transport.TPM, index tpm2.TPMHandle, content []byte) {
	t.Helper()
	for offset := 0; offset < len(content); offset += 512 {
		read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(conn) // the Name changes with the first write
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: read.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: content[offset:min(offset+512, len(content))]},
			Offset:     uint16(offset),
		}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func undefineNV(t testing.TB, conn transport.TPM, hierarchy, index tpm2.TPMHandle) {
	t.Helper()
	read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.NVUndefineSpace{AuthHandle: hierarchy, NVIndex: tpm2.NamedHandle{Handle: index, Name: read.NVName}}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
}

// makeCredential makes a challenge as an attester does: for a key made from the
// template, of which it has seen the public half only.
func makeCredential(t *testing.T, template tpm2.TPMTPublic, enrolment keystore.Enrolment) (credential, secret, challenge []byte) {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(enrolment.EK)
	if err != nil {
		t.Fatal(err)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: public.N.Bytes()})
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := len(point) / 2
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
		})
	}
	key, err := tpm2.ImportEncapsulationKey(&template)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](enrolment.AK)
	if err != nil {
		t.Fatal(err)
	}
	if a := ak.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		t.Errorf("attestation key with the attributes %+v", a)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		t.Fatal(err)
	}
	challenge = bytes.Repeat([]byte{0x5e}, 32)
	credential, secret, err = tpm2.CreateCredential(rand.Reader, key, name.Buffer, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return credential, secret, challenge
}

// activate enrols key with a TPM without certificates.
func activate(t *testing.T, _ tpmtest.Device, key keystore.Key) {
	t.Helper()
	activateWith(t, key, tpm2.RSAEKTemplate)
}

func activateWith(t *testing.T, key keystore.Key, template tpm2.TPMTPublic) keystore.Enrolment {
	t.Helper()
	enrolment := enrol(t, key)
	credential, secret, challenge := makeCredential(t, template, enrolment)
	got, err := attestable(t, key).Activate(t.Context(), credential, secret)
	if err != nil {
		t.Fatalf("Activate: %v", err)
	}
	if !bytes.Equal(got, challenge) {
		t.Errorf("Activate returned %x, want %x", got, challenge)
	}
	return enrolment
}

// persist puts the endorsement key of a template where a device's operating
// system does.
func persist(t testing.TB, conn transport.TPM, template tpm2.TPMTPublic) {
	t.Helper()
	ek, _ := makePrimary(t, conn, template)
	_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: ek, PersistentHandle: 0x81010001}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: ek.Handle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
}

// writeKey makes a key as another program may and writes its file.
func writeKey(t *testing.T, d tpmtest.Device, dir, name string, change func(*tpm2.TPMTPublic)) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	srk, _, err := keyfile.CreateSRK(keyfile.NewTPMSession(conn), tpm2.TPMRHOwner, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keyfile.FlushHandle(conn, srk)
	public := tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
	change(&public)
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: srk.Handle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)},
		InPublic:     tpm2.New2B(public),
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	file := keyfile.NewTPMKey(keyfile.OIDLoadableKey, rsp.OutPublic, rsp.OutPrivate, keyfile.WithParent(tpm2.TPMRHOwner))
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
