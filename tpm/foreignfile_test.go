// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// eccPrimary and rsaPrimary are the parents that the format knows, with the template
// H-2 and its like for RSA.
var eccPrimary, rsaPrimary = func() (ecc, rsa tpm2.TPMTPublic) {
	ecc, rsa = tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate
	ecc.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	rsa.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return ecc, rsa
}()

func signingTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
}

// under makes a key under a primary key of a hierarchy.
func under(t *testing.T, sim *tpmtest.Sim, hierarchy tpm2.TPMHandle, parent, template tpm2.TPMTPublic) *tpm2.CreateResponse {
	t.Helper()
	p, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(parent)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(t, sim, p.ObjectHandle)
	made, err := tpm2.Create{ParentHandle: tpm2.NamedHandle{Handle: p.ObjectHandle, Name: p.Name}, InPublic: tpm2.New2B(template)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// encodeKey writes a TSS2 key whose INTEGER of the parent has these octets.
func encodeKey(made *tpm2.CreateResponse, parent []byte, optional ...func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(keyfile.OIDLoadableKey)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		for _, f := range optional {
			f(b)
		}
		b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(parent) })
		b.AddASN1OctetString(tpm2.Marshal(made.OutPublic))
		b.AddASN1OctetString(tpm2.Marshal(made.OutPrivate))
	})
	return pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: b.BytesOrPanic()})
}

var ownerParent = []byte{0x40, 0, 0, 1}

func put(t *testing.T, r *rig, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(r.config.Dir, name+".pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestForms: each way in which a key is written down is the same key.
func TestForms(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r, o := besides(t, sim)
	o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-g", "sha256", "-c", o.file("srk"),
		"-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
	o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
	defer o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001")
	made := under(t, sim, tpm2.TPMRHOwner, eccPrimary, signingTemplate())
	legacy := eccPrimary
	legacy.ObjectAttributes.FixedTPM, legacy.ObjectAttributes.FixedParent = false, false
	old := signingTemplate()
	old.ObjectAttributes.FixedTPM, old.ObjectAttributes.FixedParent = false, false
	for name, text := range map[string][]byte{
		"negative parent":       encodeKey(made, []byte{0x81, 0, 0, 1}),
		"persistent parent":     encodeKey(made, []byte{0, 0x81, 0, 0, 1}),
		"parent 0":              encodeKey(made, []byte{0}),
		"owner":                 encodeKey(made, ownerParent),
		"rsaParent FALSE":       encodeKey(made, ownerParent, rsaParent(false)),
		"rsaParent":             encodeKey(under(t, sim, tpm2.TPMRHOwner, rsaPrimary, signingTemplate()), ownerParent, rsaParent(true)),
		"old blob":              encodeOldKey(under(t, sim, tpm2.TPMRHOwner, legacy, old), ownerParent),
		"old blob without more": encodeOldKey(under(t, sim, tpm2.TPMRHOwner, legacy, old), nil),
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, r, "key", text)
			for range 2 {
				s := r.reopen(t)
				key := open(t, s, "key")
				sign(t, key)
				prove(t, key)
				s.Close()
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(after, text) || bytes.Count(after, []byte("BEGIN")) != 2 {
				t.Errorf("the file is\n%s\nand was\n%s\n%v", after, text, err)
			}
		})
	}
}

func rsaParent(is bool) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(5).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(is) })
	}
}

// encodeOldKey writes what openssl_tpm2_engine wrote before there was a draft.
func encodeOldKey(made *tpm2.CreateResponse, parent []byte) []byte {
	var b cryptobyte.Builder
	explicit := func(b *cryptobyte.Builder, tag uint8, f func(*cryptobyte.Builder)) {
		b.AddASN1(asn1.Tag(tag).ContextSpecific().Constructed(), f)
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(keyfile.OIDOldLoadableKey)
		explicit(b, 0, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		if parent != nil {
			explicit(b, 1, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(parent) })
			})
		}
		explicit(b, 2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(tpm2.Marshal(made.OutPublic)) })
		b.AddASN1OctetString(tpm2.Marshal(made.OutPrivate))
	})
	return pem.EncodeToMemory(&pem.Block{Type: "TSS2 KEY BLOB", Bytes: b.BytesOrPanic()})
}
