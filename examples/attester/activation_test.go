// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// begin is the first request of a good enrolment.
func (w *world) begin() (session string, credential, secret []byte) {
	w.t.Helper()
	answer := body(w.t, w.postJSON("/tpm/attest", w.d.enrolment()))
	session, _ = answer["session"].(string)
	return session, w.bytes(answer, "credential"), w.bytes(answer, "secret")
}

// TestActivation: the second request of an enrolment.
func TestActivation(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	const bad = http.StatusBadRequest
	finish := func(session string, secret []byte) { // must be refused
		t.Helper()
		w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": secret}), bad, "activation_failed", "wrong secret")
		if w.lastRecord()["ek"] != w.ek {
			t.Errorf("logged %v: who?", w.lastRecord())
		}
	}
	good := func(credential, secret []byte) []byte {
		t.Helper()
		answer, err := w.d.activate(w.d.akKey, credential, secret)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}

	// A wrong secret is refused, and costs the device nothing: who does not know the
	// right one must not be able to end its enrolment. The right one has one try.
	session, credential, secret := w.begin()
	answer := good(credential, secret)
	wrong := bytes.Clone(answer)
	wrong[0] ^= 1
	finish(session, wrong)
	if r := w.postJSON("/tpm/secret", object{"session": session, "secret": answer}); r.Code != http.StatusOK {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": answer}), bad, "invalid_session", "no such session")

	// The secret of another session.
	session, _, _ = w.begin()
	finish(session, answer)
	session, _, _ = w.begin()
	finish(session, nil)
	session, _, _ = w.begin()
	finish(session, answer[:31])

	// Made-up, changed, another attester's and expired sessions.
	session, credential, secret = w.begin()
	answer = good(credential, secret)
	for at, letter := range session {
		other := "A"
		if letter == 'A' {
			other = "B"
		}
		changed := session[:at] + other + session[at+1:]
		w.wantRefusal(w.postJSON("/tpm/secret", object{"session": changed, "secret": answer}), bad, "invalid_session", "no such session")
	}
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session[:40] + "\n" + session[40:], "secret": answer}), bad, "invalid_session", "no such session")
	w.start()
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": answer}), bad, "invalid_session", "no such session")
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": "made up", "secret": answer}), bad, "invalid_session", "no such session")
	w.wantRefusal(w.postJSON("/tpm/secret", object{"secret": answer}), bad, "invalid_session", "no such session")
	session, credential, secret = w.begin()
	answer = good(credential, secret)
	w.now = w.now.Add(5 * time.Minute)
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": answer}), bad, "invalid_session", "no such session")

	// The device does not learn what the session holds: the answer is in it.
	session, credential, secret = w.begin()
	raw, err := base64.RawURLEncoding.DecodeString(session)
	if err != nil || len(raw) < 32 || bytes.Contains(raw, good(credential, secret)) || bytes.Contains(raw, []byte(w.ek)) {
		t.Errorf("session %q: %v", session, err)
	}

	// Without evidence there is no such thing as an enrolment.
	plain := newFixture(t, nil)
	for _, path := range []string{"/tpm/attest", "/tpm/secret"} {
		if r := plain.post(path, "{}"); r.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.Code)
		}
	}
	if _, ok := body(t, plain.post("/challenge", ""))["pcrs"]; ok {
		t.Error("asked for PCRs without wanting evidence")
	}
}

// TestLyingAK: a device that lies about its attestation key's attributes gets a
// challenge that its TPM does not answer.
func TestLyingAK(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	unrestricted := w.d.akKey
	unrestricted.ObjectAttributes.Restricted = false
	liar := w.d.load(tpm2.TPMRHEndorsement, unrestricted)
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](liar.area)
	liar.flush()
	if err != nil {
		t.Fatal(err)
	}
	area.ObjectAttributes.Restricted = true
	request := w.d.enrolment()
	request["params"] = object{"public": tpm2.Marshal(*area)}
	answer := body(t, w.postJSON("/tpm/attest", request))
	if _, err := w.d.activate(unrestricted, w.bytes(answer, "credential"), w.bytes(answer, "secret")); err == nil || !strings.Contains(err.Error(), "TPM_RC_INTEGRITY") {
		t.Errorf("the TPM answered: %v", err)
	}
}

// TestBlockedDuringEnrolment: what the registry says when the certificate is made
// counts, and not what it said when the device asked.
func TestBlockedDuringEnrolment(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	var request struct {
		EK         []byte   `json:"ek"`
		EKCerts    [][]byte `json:"ekCerts"`
		Parameters struct {
			Public []byte `json:"public"`
		} `json:"params"`
	}
	if err := json.Unmarshal(encodeJSON(t, w.d.enrolment()), &request); err != nil {
		t.Fatal(err)
	}
	enrolment, err := w.verifier().Enrol(evidence.EnrolmentRequest{EK: request.EK, EKCertificates: request.EKCerts, AK: request.Parameters.Public})
	if err != nil {
		t.Fatal(err)
	}
	state, err := enrolment.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := w.d.activate(w.d.akKey, enrolment.Credential, enrolment.Secret)
	if err != nil {
		t.Fatal(err)
	}
	complete := func() error {
		var carried evidence.Enrolment
		if err := carried.UnmarshalBinary(state); err != nil {
			t.Fatal(err)
		}
		_, err := w.verifier().Complete(&carried, answer)
		return err
	}
	if err := complete(); err != nil {
		t.Errorf("not blocked: %v", err)
	}
	w.registry["blocked"] = []string{w.ek}
	refused := new(evidence.Error)
	if err := complete(); !errors.As(err, &refused) || refused.Code != evidence.CodeUntrustedTPM {
		t.Errorf("blocked: %v", err)
	}
}
