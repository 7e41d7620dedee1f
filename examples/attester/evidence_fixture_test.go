// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// A world is an attester that wants evidence, a device that has it, and all
// that the attester's operator and the makers of the device have written down.
type world struct {
	*fixture
	d         *device
	ca        *evidence.CA
	ek        string // the device's
	authority *x509.Certificate
	running   *evidence.Verifier // the server's

	roots     []*x509.Certificate
	links     []*x509.Certificate
	crls      []*x509.RevocationList
	registry  object
	reference object
}

const firmwareV2 = "Gateway firmware 2.0"

// newWorld makes everything good. change spoils the operator's files.
func newWorld(t testing.TB, tpm transport.TPM, change func(*world)) *world {
	t.Helper()
	w := &world{fixture: newFixture(t, nil)}
	maker, err := factory.NewTPMMaker(w.now)
	if err != nil {
		t.Fatal(err)
	}
	signer := newKey(t, elliptic.P256())
	w.authority = certificate(t, nil, signer, signer)
	w.d = newDevice(t, tpm, maker, w.firmware(firmwareV2, true))
	if w.ca, err = evidence.CreateCA(w.now); err != nil {
		t.Fatal(err)
	}
	w.ek = w.d.fingerprint()
	w.roots = []*x509.Certificate{maker.Root}
	w.registry = object{
		"models":  object{"x1": object{"oemid": 32473, "hwmodel": "Gateway X1", "hwversion": "B"}},
		"devices": []object{{"ek": w.ek, "model": "x1"}},
	}
	digest := sha256.Sum256(w.authority.Raw)
	loader := sha256.Sum256(w.d.firmware.Loader)
	separator := sha256.Sum256(make([]byte, 4))
	w.reference = object{
		"policy": "tag:example.com,2026:gateway",
		"pcrs":   []int{7, 0, 4},
		"software": []object{{
			"swname": "gateway-os", "swversion": "2.0", "verdict": "affirming",
			"first_events": object{"4": []string{hex.EncodeToString(separator[:]), hex.EncodeToString(loader[:])}},
		}},
		"secure_boot_authorities": []string{hex.EncodeToString(digest[:])},
	}
	if change != nil {
		change(w)
	}
	w.start()
	return w
}

func fingerprintOf(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])
}

// fingerprint is how the attester calls the device.
func (d *device) fingerprint() string {
	digest := sha256.Sum256(spki(d.t, withKey(d.ek(), func(k *key) crypto.PublicKey { return k.public })))
	return hex.EncodeToString(digest[:])
}

func (w *world) firmware(version string, secureBoot bool) *factory.Firmware {
	return &factory.Firmware{Version: version, Loader: []byte("loader of " + version), SecureBoot: secureBoot, Authority: w.authority}
}

// start starts a server with what the operator has written.
func (w *world) start() {
	w.t.Helper()
	w.running = w.verifier()
	w.configure(func(cfg *attester.Config) { cfg.Evidence = w.running })
}

func (w *world) verifier() *evidence.Verifier {
	w.t.Helper()
	roots, err := evidence.NewRoots(w.roots, w.links, w.crls)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := evidence.Config{
		Roots: roots,
		CA:    w.ca,
		Now:   func() time.Time { return w.now },
	}
	if w.registry != nil {
		if cfg.Registry, err = evidence.ParseRegistry(encodeJSON(w.t, w.registry)); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.reference != nil {
		if cfg.Reference, err = evidence.ParseReference(encodeJSON(w.t, w.reference)); err != nil {
			w.t.Fatal(err)
		}
	}
	verifier, err := evidence.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return verifier
}

func encodeJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (w *world) postJSON(path string, v any) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.post(path, string(encodeJSON(w.t, v)))
}

func (w *world) bytes(answer object, member string) []byte {
	w.t.Helper()
	text, _ := answer[member].(string)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) == 0 {
		w.t.Fatalf("%s of %v: %v", member, answer, err)
	}
	return data
}

// enrol does what a good device does, and returns its certificate chain.
func (w *world) enrol() [][]byte {
	w.t.Helper()
	return w.finish(w.postJSON("/tpm/attest", w.d.enrolment()))
}

// finish does the rest, after the answer to the first request.
func (w *world) finish(first *httptest.ResponseRecorder) [][]byte {
	w.t.Helper()
	answer := body(w.t, first)
	if first.Code != 200 {
		w.t.Fatalf("got %d %v, logged %s", first.Code, answer, w.log.String())
	}
	secret, err := w.d.activate(w.d.akKey, w.bytes(answer, "credential"), w.bytes(answer, "secret"))
	if err != nil {
		w.t.Fatal(err)
	}
	second := w.postJSON("/tpm/secret", object{"session": answer["session"], "secret": secret})
	if second.Code != 200 {
		w.t.Fatalf("got %d %s, logged %s", second.Code, second.Body, w.log.String())
	}
	var chain struct{ Chain [][]byte }
	if err := json.Unmarshal(second.Body.Bytes(), &chain); err != nil || len(chain.Chain) != 2 {
		w.t.Fatalf("chain %s: %v", second.Body, err)
	}
	if !bytes.Equal(chain.Chain[1], w.ca.Certificate().Raw) {
		w.t.Error("the chain does not end with the CA")
	}
	return chain.Chain
}

// instanceKey is a good Client Instance Key.
func (w *world) instanceKey() *key {
	w.t.Helper()
	return w.d.load(tpm2.TPMRHOwner, eccKey(attributesOfCI, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "instance"))
}

// wants are the PCRs that the attester asks for.
func (w *world) wants() (challenge string, pcrs []int) {
	w.t.Helper()
	answer := body(w.t, w.post("/challenge", ""))
	challenge, _ = answer["challenge"].(string)
	list, ok := answer["pcrs"].([]any)
	if !ok || challenge == "" {
		w.t.Fatalf("challenge endpoint: %v", answer)
	}
	for _, pcr := range list {
		pcrs = append(pcrs, int(pcr.(float64)))
	}
	return challenge, pcrs
}
