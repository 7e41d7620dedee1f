// SPDX-License-Identifier: Apache-2.0

package storeflag_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// TestEKCertificates: what is in the file is what an attester is sent, and a bad
// file is told before anything is opened.
func TestEKCertificates(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	conn, err := sw.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	area, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	ek, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(public any) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, ca)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	leaf, link := issue(ek), issue(&ca.PublicKey)
	network, address := sw.Addr()
	for name, tt := range map[string]struct {
		content []byte
		want    [][]byte
		err     string
	}{
		"PEM":                  {encode("CERTIFICATE", leaf), [][]byte{leaf}, ""},
		"DER":                  {leaf, [][]byte{leaf}, ""},
		"PEM with a link":      {append(encode("CERTIFICATE", link), encode("CERTIFICATE", leaf)...), [][]byte{leaf, link}, ""},
		"DER with a link":      {slices.Concat(leaf, link), [][]byte{leaf, link}, ""},
		"empty":                {nil, nil, "empty"},
		"a key":                {append(encode("CERTIFICATE", leaf), encode("PRIVATE KEY", leaf)...), nil, `type "PRIVATE KEY"`},
		"damaged":              {append(encode("CERTIFICATE", leaf), encode("CERTIFICATE", leaf[:50])...), nil, "certificate 2 in it"},
		"cut":                  {encode("CERTIFICATE", leaf)[:200], nil, "x509"},
		"a second one cut":     {append(encode("CERTIFICATE", leaf), encode("CERTIFICATE", link)[:100]...), nil, "follows certificate 1"},
		"not for this TPM":     {link, nil, "none of the certificates"},
		"no such file":         {nil, nil, "no such file"},
		"for keys in software": {leaf, nil, "needs a TPM"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ek")
			if name != "no such file" {
				if err := os.WriteFile(file, tt.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := storeflag.Flags{Store: network + ":" + address, EKFlags: storeflag.EKFlags{EKCertificates: file}}
			if name == "for keys in software" {
				f.Store = "soft"
			}
			got, err := enrolment(t, &f)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil || !slices.EqualFunc(got, tt.want, bytes.Equal) {
				t.Errorf("%d certificates, want %d, or another order: %v", len(got), len(tt.want), err)
			}
		})
	}
}

// enrolment returns the certificates that an attester is sent.
func enrolment(t *testing.T, f *storeflag.Flags) ([][]byte, error) {
	t.Helper()
	store, err := f.Open(t.Context())
	if err != nil {
		return nil, err
	}
	defer store.Close()
	key, err := store.Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	enrolment, err := key.(keystore.AttestableKey).Enrolment(t.Context())
	return enrolment.EKCertificates, err
}
