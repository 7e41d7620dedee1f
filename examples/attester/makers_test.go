// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// A made TPM is what a maker delivers, and what the attester's operator does about
// it: a row of the table in PROTOCOL.md.
type madeTPM struct {
	nv        map[tpm2.TPMHandle][]byte
	elsewhere [][]byte // tpm.Config.EKCertificates

	anchors, links []*x509.Certificate
	optional       bool // ek_certificate of the model

	by string // tpm_endorsement; "": refused
}

// TestTPMMakers: TPMs of the kinds that are sold, on swtpm, with chains of the same
// shape: from what is in NV to the attestation. Each row of the table in PROTOCOL.md
// that says "tried" is one here.
func TestTPMMakers(t *testing.T) {
	document, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	type keys struct{ rsa, ecc crypto.PublicKey }
	now := time.Now()
	maker := func(t *testing.T) *factory.TPMMaker {
		m, err := factory.NewTPMMaker(now)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	issuer := func(t *testing.T, of *factory.TPMMaker, name string) *factory.TPMMaker {
		m, err := of.Issuer(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	leaf := func(t *testing.T, of *factory.TPMMaker, key crypto.PublicKey) []byte {
		der, err := of.Certify(key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	const rsaNV, eccNV, chainNV = tpm2.TPMHandle(0x01c00002), tpm2.TPMHandle(0x01c0000a), tpm2.TPMHandle(0x01c00100)
	type certificates = []*x509.Certificate
	rows := map[string]func(t *testing.T, k keys) madeTPM{
		"Intel PTT, 11th generation and later": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			odca := issuer(t, root, "ODCA issuing CA") // on the maker's web site
			rom := issuer(t, odca, "ROM CA")
			kernel := issuer(t, rom, "Kernel CA")
			ptt := issuer(t, kernel, "PTT CA")
			chain := slices.Concat(ptt.Root.Raw, kernel.Root.Raw, rom.Root.Raw)
			return madeTPM{
				nv:      map[tpm2.TPMHandle][]byte{rsaNV: leaf(t, ptt, k.rsa), eccNV: leaf(t, ptt, k.ecc), chainNV: chain[:1000], chainNV + 1: chain[1000:]},
				anchors: certificates{root.Root}, links: certificates{odca.Root}, by: "certificate",
			}
		},
		"Intel PTT, before": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			ek := issuer(t, root, "TPM EK intermediate")
			return madeTPM{elsewhere: [][]byte{leaf(t, ek, k.rsa)}, anchors: certificates{root.Root}, links: certificates{ek.Root}, by: "certificate"}
		},
		"AMD fTPM": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			family := issuer(t, root, "a family's CA")
			return madeTPM{elsewhere: [][]byte{leaf(t, family, k.ecc), family.Root.Raw}, anchors: certificates{root.Root}, by: "certificate"}
		},
		"AMD Pluton": func(t *testing.T, k keys) madeTPM {
			factoryCA := issuer(t, maker(t), "factory CA") // nobody has what is above it
			return madeTPM{nv: map[tpm2.TPMHandle][]byte{eccNV: leaf(t, factoryCA, k.ecc)}, anchors: certificates{factoryCA.Root}, by: "certificate"}
		},
		"Infineon": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			rsa, ecc := issuer(t, root, "RSA CA 042"), issuer(t, root, "ECC CA 042")
			return madeTPM{
				nv:      map[tpm2.TPMHandle][]byte{rsaNV: leaf(t, rsa, k.rsa), eccNV: leaf(t, ecc, k.ecc)},
				anchors: certificates{root.Root}, links: certificates{ecc.Root, rsa.Root}, by: "certificate",
			}
		},
		"STM": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			ecc := issuer(t, inUTF8(t, root), "ECC CA 01")
			return madeTPM{nv: map[tpm2.TPMHandle][]byte{eccNV: leaf(t, inUTF8(t, ecc), k.ecc)}, anchors: certificates{root.Root}, links: certificates{ecc.Root}, by: "certificate"}
		},
		"Nuvoton": func(t *testing.T, k keys) madeTPM {
			root := *maker(t)
			template := &x509.Certificate{
				SerialNumber: big.NewInt(3), Subject: root.Root.Subject, NotBefore: root.Root.NotBefore, NotAfter: root.Root.NotAfter,
				IsCA: true, BasicConstraintsValid: true, SignatureAlgorithm: x509.ECDSAWithSHA1,
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, root.Root.PublicKey, root.Key())
			if err != nil {
				t.Fatal(err)
			}
			if root.Root, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
			return madeTPM{nv: map[tpm2.TPMHandle][]byte{rsaNV: leaf(t, &root, k.rsa)}, anchors: certificates{root.Root}, by: "certificate"}
		},
		"Hyper-V, Azure": func(t *testing.T, k keys) madeTPM {
			return madeTPM{anchors: certificates{maker(t).Root}, optional: true, by: "registry"}
		},
		"AWS NitroTPM": func(t *testing.T, k keys) madeTPM {
			return madeTPM{anchors: certificates{maker(t).Root}, optional: true, by: "registry"}
		},
		"Google Compute Engine": func(t *testing.T, k keys) madeTPM {
			root := maker(t)
			ek := issuer(t, root, "tpm_ek_v1_cloud_host")
			return madeTPM{elsewhere: [][]byte{leaf(t, ek, k.rsa)}, anchors: certificates{root.Root}, links: certificates{ek.Root}, by: "certificate"}
		},
		"any, not certified and not allowed to be so": func(t *testing.T, k keys) madeTPM {
			return madeTPM{anchors: certificates{maker(t).Root}}
		},
	}
	tried := 0
	for name, row := range rows {
		t.Run(strings.ReplaceAll(name, ",", ""), func(t *testing.T) { // swtpm takes no folder with a comma in its name
			w := newWorld(t, &redial{t: t, device: tpmtest.SWTPM(t, tpmtest.SWConfig{})}, nil)
			ofTemplate := func(template tpm2.TPMTPublic) crypto.PublicKey {
				return withKey(w.d.load(tpm2.TPMRHEndorsement, template), func(k *key) crypto.PublicKey { return k.public })
			}
			k := keys{ofTemplate(tpm2.RSAEKTemplate), ofTemplate(tpm2.ECCEKTemplate)}
			made := row(t, k)
			for index, content := range made.nv {
				if err := factory.WriteNV(w.d.tpm, index, content); err != nil {
					t.Fatal(err)
				}
			}
			requirement := map[bool]string{true: "optional", false: "required"}[made.optional]
			w.now, w.reference, w.roots, w.links = now, nil, made.anchors, made.links
			w.registry = object{
				"models":  object{"x1": object{"hwmodel": "Gateway X1", "ek_certificate": requirement}},
				"devices": []object{{"ek": spkiDigest(t, k.rsa), "model": "x1"}, {"ek": spkiDigest(t, k.ecc), "model": "x1"}},
			}
			w.start()
			store, err := tpm.Open(t.Context(), tpm.Config{TPM: w.d.tpm, Dir: t.TempDir(), EKCertificates: made.elsewhere})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			instance, err := store.Create(t.Context(), "instance")
			if err != nil {
				t.Fatal(err)
			}
			attester := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: &direct{w: w}}}
			attestation, err := attester.Attest(t.Context(), client.AttestRequest{ClientID: clientID, Key: instance, Clock: func() time.Time { return w.now }})
			if made.by == "" {
				if record := w.lastRecord(); err == nil || record["error"] != "untrusted_tpm" {
					t.Errorf("%v, logged %v", err, record)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v, logged %v", err, w.lastRecord())
			}
			if _, claims := w.open(attestation); claims["tpm_endorsement"] != made.by || claims["hwmodel"] == nil {
				t.Errorf("claims %v", claims)
			}
			if !strings.Contains(string(document), "| "+name+" |") {
				t.Errorf("PROTOCOL.md has no row for %s", name)
			}
			tried++
		})
	}
	if tried != 10 {
		t.Errorf("%d kinds were tried, want 10", tried)
	}
	if said := strings.Count(string(document), "| tried"); said != 11 { // and swtpm, by TestSWTPM
		t.Errorf("PROTOCOL.md says that %d kinds were tried, want 11", said)
	}
}

func spkiDigest(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	return fingerprintOf(string(spki(t, public)))
}

// inUTF8 is a CA whose issued certificates name it in UTF8String, where its own has
// PrintableString.
func inUTF8(t *testing.T, m *factory.TPMMaker) *factory.TPMMaker {
	t.Helper()
	raw, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(m.Root.Subject.CommonName)})
	if err != nil {
		t.Fatal(err)
	}
	attribute := append([]byte{0x06, 3, 0x55, 4, 3}, raw...)
	for _, tag := range []byte{0x30, 0x31, 0x30} { // attribute, set, sequence
		attribute = append([]byte{tag, byte(len(attribute))}, attribute...)
	}
	twin, certificate := *m, *m.Root
	if string(certificate.RawSubject) == string(attribute) {
		t.Fatal("the name is in UTF8String already")
	}
	certificate.RawSubject = attribute
	twin.Root = &certificate
	return &twin
}
