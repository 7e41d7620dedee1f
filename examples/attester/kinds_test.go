// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"os"
	"testing"
	"time"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestKinds: each kind of endorsement key, attestation key and instance key.
func TestKinds(t *testing.T) {
	sim := tpmtest.Simulator(t)
	instance := eccKey(attributesOfCI, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "instance")
	noScheme := eccKey(attributesOfCI, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "instance")
	noScheme.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
	})
	kinds := map[string]struct{ ek, ak, instance tpm2.TPMTPublic }{
		"ECC": {tpm2.ECCEKTemplate, eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, ""), instance},
		"RSA": {tpm2.RSAEKTemplate, rsaAK(2048, tpm2.TPMAlgSHA256), instance},
		"P-384 instance key": {tpm2.ECCEKTemplate, eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, ""),
			eccKey(attributesOfCI, tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, "instance")},
		"P-384 EK": {highEK(tpm2.TPMAlgECC), eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, ""), instance},
	}
	attested := 0
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			w := newWorld(t, tpmtest.Dial(t, sim), nil)
			w.d.ekKey, w.d.akKey = kind.ek, kind.ak
			w.ek = w.d.fingerprint()
			w.registry["devices"] = []object{{"ek": w.ek, "model": "x1"}}
			w.start()
			k := w.d.load(tpm2.TPMRHOwner, kind.instance)
			defer k.flush()
			w.wantAttestation(w.send(w.attempt(k, w.enrol()).request()))
			attested++
		})
	}
	if attested != 4 {
		t.Errorf("%d kinds attested, want 4", attested)
	}
}

// highEK is the TCG's template H-3 (P-384) or H-6 (RSA-3072).
func highEK(kind tpm2.TPMIAlgPublic) tpm2.TPMTPublic {
	policy, _ := hex.DecodeString("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12")
	symmetric := tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
	template := tpm2.TPMTPublic{
		Type:    kind,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(kind, &tpm2.TPMSECCParms{Symmetric: symmetric, CurveID: tpm2.TPMECCNistP384}),
		Unique:     tpm2.NewTPMUPublicID(kind, &tpm2.TPMSECCPoint{}),
	}
	if kind == tpm2.TPMAlgRSA {
		template.Parameters = tpm2.NewTPMUPublicParms(kind, &tpm2.TPMSRSAParms{Symmetric: symmetric, KeyBits: 3072})
		template.Unique = tpm2.NewTPMUPublicID(kind, &tpm2.TPM2BPublicKeyRSA{})
	}
	return template
}

// TestSWTPM: a TPM whose EK certificates others have issued, from its NV memory
// to the attestation.
func TestSWTPM(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
	tpm := &redial{t: t, device: sw}
	w := newWorld(t, tpm, nil)
	w.now = time.Now()
	w.roots = nil
	for _, der := range sw.CA(t) {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		w.roots = append(w.roots, certificate)
	}
	attested := 0
	for name, kind := range map[string]struct {
		index tpm2.TPMHandle
		ek    tpm2.TPMTPublic
	}{
		"RSA-2048, L-1": {0x01c00002, tpm2.RSAEKTemplate},
		"P-384, H-3":    {0x01c00016, highEK(tpm2.TPMAlgECC)},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, w.d.t = t, t
			w.d.ekKey, w.d.ekDER = kind.ek, readNV(t, tpm, kind.index)
			w.ek = w.d.fingerprint()
			w.registry["devices"] = []object{{"ek": w.ek, "model": "x1"}}
			w.start()
			chain := w.enrol()
			k := w.instanceKey()
			w.wantAttestation(w.send(w.attempt(k, chain).request()))
			k.flush()
			if w.lastRecord()["ek"] != w.ek {
				t.Errorf("logged %v", w.lastRecord())
			}
			attested++

			// Without the intermediate certificate the chain has a gap.
			roots := w.roots
			defer func() { w.roots = roots }()
			w.roots = roots[:1]
			w.start()
			w.wantRefusal(w.postJSON("/tpm/attest", w.d.enrolment()), 400, "untrusted_tpm", "unknown authority")
			// The operator has it, or the device sends it.
			defer func() { w.links = nil }()
			w.links = roots[1:]
			w.start()
			w.enrol()
			w.links = nil
			w.start()
			enrolment := w.d.enrolment()
			enrolment["ekCerts"] = append(enrolment["ekCerts"].([][]byte), roots[1].Raw)
			if answer := w.postJSON("/tpm/attest", enrolment); answer.Code != 200 {
				t.Errorf("with the link from the device: %d, logged %v", answer.Code, w.lastRecord())
			}
			// A link alone is no anchor, unless the operator says that it is one.
			w.roots, w.links = nil, roots
			w.start()
			w.wantRefusal(w.postJSON("/tpm/attest", w.d.enrolment()), 400, "untrusted_tpm", "unknown authority")
			w.roots, w.links = roots[1:], nil
			w.start()
			w.enrol()
		})
	}
	w.t, w.d.t = t, t
	if attested != 2 {
		t.Errorf("%d kinds attested, want 2", attested)
	}
}

func readNV(t *testing.T, tpm transport.TPM, index tpm2.TPMHandle) []byte {
	t.Helper()
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	area, err := public.NVPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	var content []byte
	for len(content) < int(area.DataSize) {
		read, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       uint16(min(512, int(area.DataSize)-len(content))),
			Offset:     uint16(len(content)),
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, read.Data.Buffer...)
	}
	return content
}

// TestRSA3072: the endorsement key that the simulator has not.
func TestRSA3072(t *testing.T) {
	w := newWorld(t, &redial{t: t, device: tpmtest.SWTPM(t, tpmtest.SWConfig{})}, nil)
	w.d.ekKey = highEK(tpm2.TPMAlgRSA)
	w.d.keep(w.d.ekKey)
	w.ek = w.d.fingerprint()
	w.registry["devices"] = []object{{"ek": w.ek, "model": "x1"}}
	w.start()
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	w.wantAttestation(w.send(w.attempt(k, chain).request()))
}

// TestRealLog: the boot log of a real machine (Ubuntu, with Secure Boot on),
// replayed into the simulator; see testdata/README.md.
func TestRealLog(t *testing.T) {
	log, err := os.ReadFile("testdata/ubuntu-secure-boot.eventlog")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := attest.ParseEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	sim := tpmtest.Simulator(t)
	w := newWorld(t, tpmtest.Dial(t, sim), nil)
	sim.Reset()
	replayed := 0
	for _, event := range parsed.Events(attest.HashSHA256) {
		if event.Type == 3 { // EV_NO_ACTION
			continue
		}
		if err := factory.Measure(w.d.tpm, factory.Event{PCR: event.Index, Digest: event.Digest}); err != nil {
			t.Fatal(err)
		}
		replayed++
	}
	if replayed != 14 {
		t.Errorf("%d events, want 14", replayed)
	}
	w.d.log = log

	authorities := []string{
		"48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507", // Microsoft Corporation UEFI CA 2011
		"ed1fe72cb9ca31c9af5b757afcd733323d675825032e6ced7fe1ae9eb767998c", // Canonical Ltd. Master Certificate Authority
	}
	w.reference["secure_boot_authorities"] = authorities
	w.reference["attest_unknown_software"] = true
	w.start()
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	_, claims := w.open(w.wantAttestation(w.send(w.attempt(k, chain).request())))
	if claims["oemboot"] != true || claims["swname"] != nil {
		t.Errorf("claims %v", claims)
	}
	w.reference["secure_boot_authorities"] = authorities[1:]
	w.start()
	w.wantRefusal(w.send(w.attempt(k, chain).request()), 403, "policy_violation", "unknown authority "+authorities[0])
}

// TestSecondOpinion: go-attestation finds nothing wrong with what this attester
// accepts, and finds wrong what it was not meant for.
func TestSecondOpinion(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	a := w.attempt(k, chain)
	w.wantAttestation(w.send(a.request()))

	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(o object, name string) []byte { return o[name].([]byte) }
	certification := attest.CertificationParameters{
		Public: bytesOf(a.proof.statement, "pubArea"), CreateAttestation: bytesOf(a.proof.statement, "certInfo"),
		CreateSignature: bytesOf(a.proof.statement, "sig"),
	}
	if err := certification.Verify(attest.VerifyOpts{Public: leaf.PublicKey, Hash: crypto.SHA256}); err != nil {
		t.Errorf("certInfo: %v", err)
	}
	ak := attest.AKPublic{Public: leaf.PublicKey, Hash: crypto.SHA256}
	var pcrs []attest.PCR
	for index, value := range map[int]string{0: "0", 4: "4", 7: "7"} {
		pcrs = append(pcrs, attest.PCR{Index: index, Digest: a.proof.quotes[0]["pcrValues"].(object)[value].([]byte), DigestAlg: crypto.SHA256})
	}
	quote := attest.Quote{Quote: bytesOf(a.proof.quotes[0], "rawQuote"), Signature: bytesOf(a.proof.quotes[0], "rawSignature")}
	if err := ak.VerifyAll([]attest.Quote{quote}, pcrs, a.binding); err != nil {
		t.Errorf("quote: %v", err)
	}
	if err := ak.VerifyAll([]attest.Quote{quote}, pcrs, bytes.Repeat([]byte{1}, 32)); err == nil {
		t.Error("quote: any nonce will do")
	}
	log, err := attest.ParseEventLog(a.proof.log)
	if err != nil {
		t.Fatal(err)
	}
	events, err := log.Verify(pcrs)
	if err != nil || len(events) != len(w.d.firmware.Events()) {
		t.Errorf("log: %d events, %v", len(events), err)
	}
	state, err := attest.ParseSecurebootState(events)
	if err != nil || !state.Enabled {
		t.Errorf("Secure Boot: %+v, %v", state, err)
	}
}
