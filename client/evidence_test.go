// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

const (
	getChain = "AKCertificates " + attesterURL
	setChain = "SetAKCertificates " + attesterURL
)

// TestEvidenceOnTheWire: the request's evidence, member by member.
func TestEvidenceOnTheWire(t *testing.T) {
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	key.chain = [][]byte{akCertificate(t, time.Hour)}
	key.later = [2][]byte{[]byte("userspace"), []byte("files")}
	if got, err := a.attest(key); err != nil || got != "attestation" {
		t.Fatalf("Attest = %q, %v", got, err)
	}
	a.wantPaths("/challenge", "/client-attestation")
	wantCalls(t, key, getChain, "Evidence")
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	binding := sha256.Sum256([]byte("ch." + thumbprint))
	wantRequest := keystore.EvidenceRequest{Binding: binding[:], PCRs: []int{0, 7}, AKCertificates: key.chain}
	if !reflect.DeepEqual(key.requests, []keystore.EvidenceRequest{wantRequest}) {
		t.Errorf("asked for %+v", key.requests)
	}
	claims := a.claims()
	want := map[string]any{
		"attObj": "c3RhdGVtZW50__4", // base64url, without padding
		"tpmAttestation": map[string]any{
			"quotes": []any{map[string]any{
				"hashAlgo":     11.0,
				"pcrValues":    map[string]any{"0": "AP/+", "7": "B//+"}, // base64
				"rawQuote":     "cXVvdGVk//4=",
				"rawSignature": "c2lnbmF0dXJl",
			}},
			"tcgEventLog":       "bG9n",
			"canonicalEventLog": "dXNlcnNwYWNl",
			"imaLog":            "ZmlsZXM=",
		},
	}
	if !reflect.DeepEqual(claims["evidence"], want) {
		t.Errorf("evidence %v, want %v", claims["evidence"], want)
	}
	if claims["challenge"] != "ch" || len(claims) != 7 {
		t.Errorf("claims %v", claims)
	}
}

// TestEvidenceAskedFor: the attester decides what it gets.
func TestEvidenceAskedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		challenge        string
		evidence, quotes bool
	}{
		"nothing":      {`{"challenge":"ch"}`, false, false},
		"null":         {`{"challenge":"ch","pcrs":null}`, false, false},
		"the key only": {`{"challenge":"ch","pcrs":[]}`, true, false},
		"a quote too":  {`{"challenge":"ch","pcrs":[7]}`, true, true},
	} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, a.challenge = a.chain, tt.challenge
		if _, err := a.attest(key); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		evidence, sent := a.claims()["evidence"].(map[string]any)
		if _, quotes := evidence["tpmAttestation"]; sent != tt.evidence || quotes != tt.quotes || sent != (len(key.calls) > 0) {
			t.Errorf("%s: evidence %v, calls %q", name, evidence, key.calls)
		}
	}
}

// TestEvidenceWithoutLog: no member for logs that are not there.
func TestEvidenceWithoutLog(t *testing.T) {
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	key.chain, key.eventLog = a.chain, nil
	if _, err := a.attest(key); err != nil {
		t.Fatal(err)
	}
	platform := a.claims()["evidence"].(map[string]any)["tpmAttestation"].(map[string]any)
	if _, ok := platform["tcgEventLog"]; ok || len(platform) != 1 {
		t.Errorf("tpmAttestation %v", platform)
	}
}

// TestNoEvidence: a key in software is not attested where evidence is wanted,
// and nothing of it is sent.
func TestNoEvidence(t *testing.T) {
	a := newEvidenceAttester(t)
	if _, err := a.attest(newKey(t, "ES256")); !errors.Is(err, client.ErrNoEvidence) {
		t.Errorf("%v, want ErrNoEvidence", err)
	}
	a.wantPaths("/challenge")
}

// TestEnrolment: when it is done, and how it looks on the wire.
func TestEnrolment(t *testing.T) {
	for name, chain := range map[string][][]byte{
		"never before": nil, "expired": {akCertificate(t, -time.Minute)}, "not a certificate": {{1, 2, 3}},
	} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain = chain
		if _, err := a.attest(key); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/client-attestation")
		wantCalls(t, key, getChain, "Enrolment", "Activate", setChain, "Evidence")
		if want := map[string]any{
			"ek": "ZWv//g==", "ekCerts": []any{"ZWsgY2VydGlmaWNhdGU="}, "params": map[string]any{"public": "YWs="},
		}; !reflect.DeepEqual(a.bodies[1], want) {
			t.Errorf("%s: %v, want %v", name, a.bodies[1], want)
		}
		activated := base64.StdEncoding.EncodeToString([]byte("activated credential\xff\xfesecret"))
		if want := map[string]any{"session": "s1", "secret": activated}; !reflect.DeepEqual(a.bodies[2], want) {
			t.Errorf("%s: %v, want %v", name, a.bodies[2], want)
		}
		if !reflect.DeepEqual(key.chain, a.chain) || !reflect.DeepEqual(key.requests[0].AKCertificates, a.chain) {
			t.Errorf("%s: the chain %x was kept", name, key.chain)
		}
	}
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	key.noEK = true
	if _, err := a.attest(key); err != nil || !reflect.DeepEqual(a.bodies[1]["ekCerts"], []any{}) {
		t.Errorf("without certificates: %v, %v", a.bodies[1], err)
	}
}

// TestNotEnrolled: an attester that does not know the attestation key is
// enrolled with and asked again, once, with a new challenge.
func TestNotEnrolled(t *testing.T) {
	refusedOnce := []string{"/challenge", "/client-attestation", "/tpm/attest", "/tpm/secret", "/challenge", "/client-attestation"}
	t.Run("once", func(t *testing.T) {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, a.refuse["/client-attestation"], a.once = [][]byte{akCertificate(t, time.Hour)}, "ak_not_enrolled", true
		if got, err := a.attest(key); err != nil || got != "attestation" {
			t.Errorf("Attest = %q, %v", got, err)
		}
		a.wantPaths(refusedOnce...)
		if len(key.requests) != 2 || !reflect.DeepEqual(key.requests[1].AKCertificates, a.chain) {
			t.Errorf("asked for %+v", key.requests)
		}
	})
	t.Run("always", func(t *testing.T) {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, a.refuse["/client-attestation"] = [][]byte{akCertificate(t, time.Hour)}, "ak_not_enrolled"
		var refused *client.AttesterError
		if _, err := a.attest(key); !errors.As(err, &refused) || refused.Code != "ak_not_enrolled" {
			t.Errorf("%v", err)
		}
		a.wantPaths(refusedOnce...)
	})
	t.Run("issues what has expired", func(t *testing.T) { // by this device's clock: no second enrolment
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, a.chain = [][]byte{akCertificate(t, time.Hour)}, [][]byte{akCertificate(t, -time.Minute)}
		a.refuse["/client-attestation"], a.once = "ak_not_enrolled", true
		if _, err := a.attest(key); err != nil {
			t.Error(err)
		}
		a.wantPaths(refusedOnce...)
	})
	t.Run("just enrolled", func(t *testing.T) {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		a.refuse["/client-attestation"] = "ak_not_enrolled"
		if _, err := a.attest(key); err == nil {
			t.Error("no error")
		}
		a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/client-attestation")
	})
	t.Run("software key", func(t *testing.T) {
		a := newEvidenceAttester(t)
		a.challenge, a.refuse["/client-attestation"] = `{"challenge":"ch"}`, "ak_not_enrolled"
		if _, err := a.attest(newKey(t, "ES256")); err == nil {
			t.Error("no error")
		}
		a.wantPaths("/challenge", "/client-attestation")
	})
	t.Run("another refusal", func(t *testing.T) {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, a.refuse["/client-attestation"] = a.chain, "invalid_evidence"
		if _, err := a.attest(key); err == nil {
			t.Error("no error")
		}
		a.wantPaths("/challenge", "/client-attestation")
	})
}

// TestInvalidSession: an enrolment that has taken too long, or whose answer was lost,
// is begun anew, once.
func TestInvalidSession(t *testing.T) {
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	a.refuse["/tpm/secret"], a.once = "invalid_session", true
	if got, err := a.attest(key); err != nil || got != "attestation" {
		t.Errorf("Attest = %q, %v", got, err)
	}
	a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/tpm/attest", "/tpm/secret", "/client-attestation")
	wantCalls(t, key, getChain, "Enrolment", "Activate", "Enrolment", "Activate", setChain, "Evidence")

	a, key = newEvidenceAttester(t), newDeviceKey(t)
	a.refuse["/tpm/secret"] = "invalid_session"
	var refused *client.AttesterError
	if _, err := a.attest(key); !errors.As(err, &refused) || refused.Code != "invalid_session" || key.chain != nil {
		t.Errorf("always: %v, %d certificates kept", err, len(key.chain))
	}
	a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/tpm/attest", "/tpm/secret")

	// After a refusal with ak_not_enrolled, too; other refusals are not tried again.
	a, key = newEvidenceAttester(t), newDeviceKey(t)
	key.chain = a.chain
	a.refuse["/client-attestation"], a.refuse["/tpm/secret"], a.once = "ak_not_enrolled", "invalid_session", true
	if _, err := a.attest(key); err != nil {
		t.Errorf("of a second enrolment: %v", err)
	}
	a.wantPaths("/challenge", "/client-attestation", "/tpm/attest", "/tpm/secret", "/tpm/attest", "/tpm/secret", "/challenge", "/client-attestation")
	a, key = newEvidenceAttester(t), newDeviceKey(t)
	a.refuse["/tpm/secret"] = "activation_failed"
	if _, err := a.attest(key); err == nil {
		t.Error("activation_failed: no error")
	}
	a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret")
}

// TestEvidenceFails: whatever fails ends it there, with its cause.
func TestEvidenceFails(t *testing.T) {
	cause := errors.New("cause")
	for call, paths := range map[string][]string{
		getChain:    {"/challenge"},
		"Enrolment": {"/challenge"},
		"Activate":  {"/challenge", "/tpm/attest"},
		setChain:    {"/challenge", "/tpm/attest", "/tpm/secret"},
		"Evidence":  {"/challenge", "/tpm/attest", "/tpm/secret"},
	} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.fail[call] = cause
		if _, err := a.attest(key); !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "client: ") {
			t.Errorf("%s: %v", call, err)
		}
		a.wantPaths(paths...)
	}
	for path, paths := range map[string][]string{
		"/tpm/attest": {"/challenge", "/tpm/attest"},
		"/tpm/secret": {"/challenge", "/tpm/attest", "/tpm/secret"},
	} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		a.refuse[path] = "untrusted_tpm"
		var refused *client.AttesterError
		if _, err := a.attest(key); !errors.As(err, &refused) || refused.Code != "untrusted_tpm" {
			t.Errorf("%s: %v", path, err)
		}
		a.wantPaths(paths...)
		if key.chain != nil {
			t.Errorf("%s: the chain %x was kept", path, key.chain)
		}
	}
}

// TestEvidenceTooLarge: what the attester would not take is not sent.
func TestEvidenceTooLarge(t *testing.T) {
	for size, fits := range map[int]bool{500 << 10: true, 1 << 20: false} {
		a, key := newEvidenceAttester(t), newDeviceKey(t)
		key.chain, key.eventLog = a.chain, bytes.Repeat([]byte("log "), size/4)
		_, err := a.attest(key)
		if (err == nil) != fits || (len(a.paths) == 2) != fits {
			t.Errorf("a log of %d bytes: %v, requests to %q", size, err, a.paths)
		}
		if err != nil && !strings.Contains(err.Error(), "event logs are too large") {
			t.Errorf("%q does not say what is too large", err)
		}
	}
}

// TestEvidenceOverHTTP: none leaves for an attester that is neither TLS nor on
// this machine.
func TestEvidenceOverHTTP(t *testing.T) {
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	h := client.HTTPAttester{URL: "http://attester.example.com", Client: &http.Client{Transport: inProcess{a}}}
	if _, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key}); err == nil {
		t.Error("no error")
	}
	a.wantPaths()
	wantCalls(t, key)
}
