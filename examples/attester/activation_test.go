package attester_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

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
	finish := func(session string, secret []byte) { // must be refused, and use the session up
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

	// A wrong secret has one try.
	session, credential, secret := w.begin()
	answer := good(credential, secret)
	wrong := bytes.Clone(answer)
	wrong[0] ^= 1
	finish(session, wrong)
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": answer}), bad, "invalid_session", "no such session")

	// So has a right one.
	session, credential, secret = w.begin()
	answer = good(credential, secret)
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

	// Made-up and expired sessions.
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": "made up", "secret": answer}), bad, "invalid_session", "no such session")
	w.wantRefusal(w.postJSON("/tpm/secret", object{"secret": answer}), bad, "invalid_session", "no such session")
	session, credential, secret = w.begin()
	answer = good(credential, secret)
	w.now = w.now.Add(5 * time.Minute)
	w.wantRefusal(w.postJSON("/tpm/secret", object{"session": session, "secret": answer}), bad, "invalid_session", "no such session")

	// One who has seen an EK certificate does not fill the attester's memory.
	for range 4 {
		w.begin()
	}
	full := w.postJSON("/tpm/attest", w.d.enrolment())
	w.wantRefusal(full, http.StatusServiceUnavailable, "temporarily_unavailable", "4 enrolments of this TPM")
	if full.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.now = w.now.Add(5 * time.Minute)
	w.enrol()

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
