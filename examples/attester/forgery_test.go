// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestForgery: what the attributes of the attestation key are looked at for. A
// TPM signs with an unrestricted key a statement that was never its own, about a
// key that it never had. Whoever sees the statement alone believes it.
func TestForgery(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) { w.reference = nil })
	chain := w.enrol()
	unrestricted := w.d.akKey
	unrestricted.ObjectAttributes.Restricted = false

	software := newKey(t, elliptic.P256())
	area := areaOf(t, &software.PublicKey)
	forge := func(ak *key, binding []byte) (certInfo, signature []byte) {
		certInfo = tpm2.Marshal(*attestFor(t, area, binding))
		digest := sha256.Sum256(certInfo)
		return certInfo, tpm2.Marshal(ak.sign(digest[:]))
	}

	// The forgery verifies.
	liar := w.d.load(tpm2.TPMRHEndorsement, unrestricted)
	certInfo, signature := forge(liar, nil)
	believed := attest.CertificationParameters{Public: tpm2.Marshal(*area), CreateAttestation: certInfo, CreateSignature: signature}
	if err := believed.Verify(attest.VerifyOpts{Public: liar.public, Hash: crypto.SHA256}); err != nil {
		t.Fatalf("the forgery is none: %v", err)
	}
	liar.flush()

	// The TPM does not do this with a restricted key.
	ak := w.d.ak()
	digest := sha256.Sum256(certInfo)
	_, err := tpm2.Sign{
		KeyHandle: ak.auth(), Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(w.d.tpm)
	ak.flush()
	if err == nil || !strings.Contains(err.Error(), "TPM_RC_TICKET") {
		t.Errorf("a restricted key signed: %v", err)
	}

	// The unrestricted key gets no certificate.
	request := w.d.enrolment()
	request["params"] = object{"public": liar.area}
	w.wantRefusal(w.postJSON("/tpm/attest", request), http.StatusBadRequest, "invalid_ak", "not restricted")

	// And that of another key does not help.
	k := w.instanceKey()
	a := w.attempt(k, chain)
	k.flush()
	a.signWith(software)
	liar = w.d.load(tpm2.TPMRHEndorsement, unrestricted)
	a.proof.statement["certInfo"], a.proof.statement["sig"] = forge(liar, a.binding)
	liar.flush()
	a.proof.statement["pubArea"] = tpm2.Marshal(*area)
	w.wantRefusal(w.send(a.request()), http.StatusBadRequest, "invalid_evidence", "does not verify")
}

// TestTwoDevices: nothing that one device has proved serves another one.
func TestTwoDevices(t *testing.T) {
	sim := tpmtest.Simulator(t)
	w := newWorld(t, tpmtest.Dial(t, sim), nil)
	chain := w.enrol()
	k := w.instanceKey()
	first := w.attempt(k, chain)
	stolen := first.request().claims["evidence"]
	session, credential, secret := w.begin()
	k.flush()

	sim.Manufacture()
	w.d.boot(w.d.firmware)
	second := w.d.fingerprint()
	w.registry["devices"] = append(w.registry["devices"].([]object), object{"ek": second, "model": "x1"})
	w.start()
	if second == w.ek {
		t.Fatal("the second device is the first one")
	}

	// The first one's challenge is nothing that the second one could answer.
	if _, err := w.d.activate(w.d.akKey, credential, secret); err == nil {
		t.Errorf("activated session %s of another device", session)
	}
	k = w.instanceKey()
	defer k.flush()
	// Its certificate, with the second one's statement.
	w.wantRefusal(w.send(w.attempt(k, chain).request()), http.StatusBadRequest, "invalid_evidence", "does not verify")
	// Its certificate and statement, with the second one's request.
	own := w.enrol()
	a := w.attempt(k, own)
	r := a.request()
	r.claims["evidence"] = stolen
	w.wantRefusal(w.send(r), http.StatusBadRequest, "invalid_evidence", "certInfo: is not bound")
	// Its quote, with all the rest the second one's.
	a = w.attempt(k, own)
	a.proof.quotes = first.proof.quotes
	w.wantRefusal(w.send(a.request()), http.StatusBadRequest, "invalid_evidence", "quote: signature of the AK does not verify")
	w.wantAttestation(w.send(w.attempt(k, own).request()))
	if w.lastRecord()["ek"] != second {
		t.Errorf("logged %v", w.lastRecord())
	}
}

// TestEvidenceRace: of two requests with the same good evidence for the same
// challenge, one is served.
func TestEvidenceRace(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	a := w.attempt(k, chain)
	requests := []string{a.request().compact(t), a.request().compact(t)} // different jti
	if requests[0] == requests[1] {
		t.Fatal("the requests are the same")
	}
	var together, done sync.WaitGroup
	together.Add(len(requests))
	codes := make(chan string, len(requests))
	for _, request := range requests {
		done.Go(func() {
			together.Done()
			together.Wait()
			answer := w.post("/client-attestation", `{"request":"`+request+`"}`)
			code, _ := body(t, answer)["error"].(string)
			codes <- code
		})
	}
	done.Wait()
	got := map[string]int{<-codes: 1}
	got[<-codes]++
	if got[""] != 1 || got["invalid_challenge"] != 1 {
		t.Errorf("answers %v, want one attestation and one invalid_challenge", got)
	}

	// The same for the two requests that answer one enrolment.
	session, credential, secret := w.begin()
	k.flush()
	answer, err := w.d.activate(w.d.akKey, credential, secret)
	if err != nil {
		t.Fatal(err)
	}
	text := string(encodeJSON(t, object{"session": session, "secret": answer}))
	for range 2 {
		done.Go(func() {
			code, _ := body(t, w.post("/tpm/secret", text))["error"].(string)
			codes <- code
		})
	}
	done.Wait()
	got = map[string]int{<-codes: 1}
	got[<-codes]++
	if got[""] != 1 || got["invalid_session"] != 1 {
		t.Errorf("answers %v, want one chain and one invalid_session", got)
	}
}
