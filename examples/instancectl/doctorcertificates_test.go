// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// A TPM as its maker delivers it.
func TestDoctorCertificates(t *testing.T) {
	s := serve(t, tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true}))
	d := examined(t, "-store", s.store)
	d.failed()
	var found []string
	for _, f := range d.findings {
		if f.Check == "EK certificates" {
			found = append(found, string(f.Status)+" "+f.Found)
		}
	}
	if len(found) != 2 || !strings.HasPrefix(found[0], "ok 0x01c00002: RSA, until ") || !strings.HasPrefix(found[1], "ok 0x01c00016: ECDSA, until ") {
		t.Errorf("found %q", found)
	}
	for _, f := range found {
		if !strings.Contains(f, "swtpm-localca") {
			t.Errorf("no issuer in %q", f)
		}
	}
}

// What leads from the TPM to its maker's root, and what the operator has of it.
func TestDoctorLinks(t *testing.T) {
	s := serve(t, tpmtest.Simulator(t))
	link := selfSigned(t, "the link")
	s.with(t, func(conn transport.TPM) {
		public := tpm2.TPMSNVPublic{NVIndex: 0x01c00100, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(link)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}}
		if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}).Execute(conn); err != nil {
			t.Fatal(err)
		}
		name, err := tpm2.NVName(&public)
		if err != nil {
			t.Fatal(err)
		}
		index := tpm2.NamedHandle{Handle: public.NVIndex, Name: *name}
		if _, err := (tpm2.NVWrite{AuthHandle: tpm2.TPMRHOwner, NVIndex: index, Data: tpm2.TPM2BMaxNVBuffer{Buffer: link}}).Execute(conn); err != nil {
			t.Fatal(err)
		}
	})
	given := writeFile(t, "given.der", string(selfSigned(t, "the root")))
	var found []string
	for _, f := range examined(t, "-store", s.store, "-ek-certificates", given).findings {
		if f.Check == "EK certificates" {
			found = append(found, string(f.Status)+" "+f.Found)
		}
	}
	want := []string{"warn the TPM has none", `ok 0x01c00100: link "CN=the link", until 2036-01-01`, `ok -ek-certificates: link "CN=the root", until 2036-01-01`}
	if len(found) != len(want) {
		t.Fatalf("found %q", found)
	}
	for i := range want {
		if !strings.HasPrefix(found[i], want[i]) {
			t.Errorf("found %q, want %q", found[i], want[i])
		}
	}
}

func selfSigned(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
