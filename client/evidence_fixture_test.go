// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	strictjson "github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

// deviceKey is a key of a device that says whatever a test wants, and notes
// what it is asked.
type deviceKey struct {
	keystore.Key
	chain    [][]byte
	requests []keystore.EvidenceRequest
	calls    []string
	fail     map[string]error
	eventLog []byte
	later    [2][]byte // UserspaceLog, IMALog
	noEK     bool      // no certificates of the endorsement key
}

func newDeviceKey(t *testing.T) *deviceKey {
	return &deviceKey{Key: newKey(t, "ES256"), fail: make(map[string]error), eventLog: []byte("log")}
}

func (k *deviceKey) note(call string) error {
	k.calls = append(k.calls, call)
	return k.fail[call]
}

func (k *deviceKey) Evidence(_ context.Context, req keystore.EvidenceRequest) (keystore.Evidence, error) {
	k.requests = append(k.requests, req)
	if err := k.note("Evidence"); err != nil {
		return keystore.Evidence{}, err
	}
	evidence := keystore.Evidence{Statement: []byte("statement\xff\xfe")}
	if len(req.PCRs) > 0 {
		evidence.Quote = &keystore.Quote{HashAlg: 11, PCRs: make(map[int][]byte), Quoted: []byte("quoted\xff\xfe"), Signature: []byte("signature")}
		for _, pcr := range req.PCRs {
			evidence.Quote.PCRs[pcr] = []byte{byte(pcr), 0xff, 0xfe}
		}
		evidence.EventLog, evidence.UserspaceLog, evidence.IMALog = k.eventLog, k.later[0], k.later[1]
	}
	return evidence, nil
}

func (k *deviceKey) Enrolment(context.Context) (keystore.Enrolment, error) {
	enrolment := keystore.Enrolment{EK: []byte("ek\xff\xfe"), EKCertificates: [][]byte{[]byte("ek certificate")}, AK: []byte("ak")}
	if k.noEK {
		enrolment.EKCertificates = nil
	}
	return enrolment, k.note("Enrolment")
}

func (k *deviceKey) Activate(_ context.Context, credential, secret []byte) ([]byte, error) {
	if err := k.note("Activate"); err != nil {
		return nil, err
	}
	return slices.Concat([]byte("activated "), credential, secret), nil
}

func (k *deviceKey) AKCertificates(_ context.Context, attester string) ([][]byte, error) {
	return k.chain, k.note("AKCertificates " + attester)
}

func (k *deviceKey) SetAKCertificates(_ context.Context, attester string, chain [][]byte) error {
	k.chain = chain
	return k.note("SetAKCertificates " + attester)
}

// evidenceAttester is a Client Attester that wants evidence. It notes what it is
// sent.
type evidenceAttester struct {
	t         *testing.T
	challenge string            // the answer to the request for one
	refuse    map[string]string // error codes by path
	once      bool              // refuse once only
	chain     [][]byte          // what it issues
	paths     []string
	bodies    []map[string]any
	activate  func(body map[string]any) (credential, secret []byte) // nil: some bytes
}

func (a *evidenceAttester) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Error(err)
	}
	path := strings.TrimPrefix(r.URL.String(), attesterURL)
	a.paths = append(a.paths, path)
	var message map[string]any
	if len(body) > 0 {
		if err := strictjson.Unmarshal(body, &message); err != nil {
			a.t.Errorf("%s: %v", path, err)
		}
	}
	a.bodies = append(a.bodies, message)
	if code, ok := a.refuse[path]; ok {
		if a.once {
			delete(a.refuse, path)
		}
		w.WriteHeader(http.StatusBadRequest)
		text(`{"error":"`+code+`"}`)(w, r)
		return
	}
	encode := base64.StdEncoding.EncodeToString
	switch path {
	case "/challenge":
		text(a.challenge)(w, r)
	case "/tpm/attest":
		credential, secret := []byte("credential\xff\xfe"), []byte("secret")
		if a.activate != nil {
			credential, secret = a.activate(message)
		}
		text(`{"session":"s1","credential":"`+encode(credential)+`","secret":"`+encode(secret)+`"}`)(w, r)
	case "/tpm/secret":
		var chain []string
		for _, der := range a.chain {
			chain = append(chain, `"`+encode(der)+`"`)
		}
		text(`{"chain":[`+strings.Join(chain, ",")+`]}`)(w, r)
	case "/client-attestation":
		text(`{"client_attestation":"attestation","expires_in":3600}`)(w, r)
	default:
		a.t.Errorf("request to %s", r.URL)
	}
}

// claims returns the payload of the last request for an attestation.
func (a *evidenceAttester) claims() map[string]any {
	a.t.Helper()
	request, _ := a.bodies[len(a.bodies)-1]["request"].(string)
	jws, err := jose.ParseSignedCompact(request, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		a.t.Fatalf("the last request was to %s: %v", a.paths[len(a.paths)-1], err)
	}
	payload, err := jws.Verify(jws.Signatures[0].Protected.JSONWebKey)
	if err != nil {
		a.t.Fatal(err)
	}
	var claims map[string]any
	if err := strictjson.Unmarshal(payload, &claims); err != nil {
		a.t.Fatal(err)
	}
	return claims
}

func newEvidenceAttester(t *testing.T) *evidenceAttester {
	return &evidenceAttester{
		t: t, challenge: `{"challenge":"ch","expires_in":300,"pcrs":[0,7]}`, refuse: make(map[string]string),
		chain: [][]byte{akCertificate(t, 30*24*time.Hour), []byte("CA")},
	}
}

func (a *evidenceAttester) attest(key keystore.Key) (string, error) {
	h := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{a}}}
	return h.Attest(a.t.Context(), client.AttestRequest{ClientID: "client", Key: key, Issuer: "https://as.example.com", Clock: newTestClock().now})
}

// akCertificate makes a certificate that is valid for so long.
func akCertificate(t *testing.T, valid time.Duration) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certificateFor(t, &key.PublicKey, valid)
}

func certificateFor(t *testing.T, public *ecdsa.PublicKey, valid time.Duration) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := newTestClock().now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(valid)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, ca)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a *evidenceAttester) wantPaths(want ...string) {
	a.t.Helper()
	if !slices.Equal(a.paths, want) {
		a.t.Errorf("requests to %q, want %q", a.paths, want)
	}
}

func wantCalls(t *testing.T, key *deviceKey, want ...string) {
	t.Helper()
	if !slices.Equal(key.calls, want) {
		t.Errorf("calls %q, want %q", key.calls, want)
	}
}
