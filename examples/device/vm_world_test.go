// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

// vmWorld is the world of a device in a machine, which reaches this one at 10.0.2.2, over
// TLS by an authority of our own, made today.
type vmWorld struct {
	*world
	certificate *x509.Certificate // of the servers
	ca          string            // the authority's certificate, a file
	logSize     atomic.Int64      // the largest boot log that the attester has got
	built       time.Time         // of the program: its commit's
	after       func()            // what has to be true after the power cut
}

func newVMWorld(t *testing.T, dir string) *vmWorld {
	w := &vmWorld{ca: filepath.Join(dir, "private-ca.crt")}
	authority, authorityKey := certify(t, nil, nil)
	certificate, key := certify(t, authority, authorityKey)
	w.certificate = certificate
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})
	if err := os.WriteFile(w.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	verifier, update := manufactured(t, dir)
	reference, err := evidence.ParseReference([]byte(`{"policy": "tag:example.com,2026:vm", "pcrs": [0, 4, 7], "software": [], "attest_unknown_software": true, "attest_without_secure_boot": true}`))
	if err != nil {
		t.Fatal(err)
	}
	update(reference)
	w.world = newWorldOf(t, func(t *testing.T) *place {
		p := new(place)
		p.Server = httptest.NewUnstartedServer(p)
		p.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}}}
		p.Config.ErrorLog = log.New(io.Discard, "", 0) // a device that is killed, or does not know us yet
		p.StartTLS()
		t.Cleanup(p.Server.Close)
		at, _ := url.Parse(p.URL)
		p.URL = "https://10.0.2.2:" + at.Port()
		return p
	}, verifier)
	attester := w.attester.handler
	w.attester.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.logSize.Store(max(w.logSize.Load(), int64(len(logIn(body)))))
		r.Body = io.NopCloser(bytes.NewReader(body))
		attester.ServeHTTP(rw, r)
	}))
	return w
}

func (w *vmWorld) largestLog() int64 { return w.logSize.Load() }

// logIn returns the boot log in a request for an attestation.
func logIn(body []byte) []byte {
	var message struct{ Request string }
	_ = json.Unmarshal(body, &message)
	parts := strings.Split(message.Request, ".")
	if len(parts) != 3 {
		return nil
	}
	claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var request struct {
		Evidence struct {
			TPM struct {
				Log []byte `json:"tcgEventLog"`
			} `json:"tpmAttestation"`
		} `json:"evidence"`
	}
	_ = json.Unmarshal(claims, &request)
	return request.Evidence.TPM.Log
}

// certify makes a certificate of today: an authority's, or a server's.
func certify(t *testing.T, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device-vm authority"}, IsCA: parent == nil, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 0, 7),
	}
	if parent == nil {
		template.NotAfter = time.Now().AddDate(10, 0, 0)
		parent, signer = template, key
	} else {
		template.SerialNumber, template.Subject.CommonName = big.NewInt(2), "device-vm server"
		template.IPAddresses = []net.IP{net.IPv4(10, 0, 2, 2)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// manufactured makes a TPM's state in the folder's tpm, and what verifies its evidence once
// it is told what devices should have booted.
func manufactured(t *testing.T, dir string) (v *evidence.Verifier, update func(*evidence.Reference)) {
	t.Helper()
	state := filepath.Join(dir, "tpm")
	ca := filepath.Join(dir, "tpmca")
	for _, folder := range []string{state, ca} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) string {
		path := filepath.Join(ca, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	localca := write("localca.conf", "statedir = "+ca+"\nsigningkey = "+ca+"/signkey.pem\nissuercert = "+ca+"/issuercert.pem\ncertserial = "+ca+"/certserial\n")
	options := write("localca.options", "--platform-manufacturer Example\n--platform-version 2.1\n--platform-model Gateway-1\n")
	setup := write("setup.conf", "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = "+localca+"\ncreate_certs_tool_options = "+options+"\nactive_pcr_banks = sha256\n")
	if output, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", state, "--create-ek-cert", "--overwrite", "--config", setup).CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v: %s", err, output)
	}
	var anchors []*x509.Certificate
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		text, err := os.ReadFile(filepath.Join(ca, name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		anchors = append(anchors, certificate)
	}
	roots, err := evidence.NewRoots(anchors, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := evidence.CreateCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v, err = evidence.New(evidence.Config{Roots: roots, CA: authority})
	if err != nil {
		t.Fatal(err)
	}
	return v, func(reference *evidence.Reference) { v.Update(roots, nil, reference) }
}
