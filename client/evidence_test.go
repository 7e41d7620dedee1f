package client_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	strictjson "github.com/go-jose/go-jose/v4/json"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
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
	noEK     bool // no certificates of the endorsement key
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
		evidence.EventLog = k.eventLog
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

const (
	getChain = "AKCertificates " + attesterURL
	setChain = "SetAKCertificates " + attesterURL
)

// TestEvidenceOnTheWire: the request's evidence, member by member.
func TestEvidenceOnTheWire(t *testing.T) {
	a, key := newEvidenceAttester(t), newDeviceKey(t)
	key.chain = [][]byte{akCertificate(t, time.Hour)}
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
			"tcgEventLog": "bG9n",
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

// TestEvidenceWithoutLog: no member for a log that is not there.
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
		if err != nil && !strings.Contains(err.Error(), "event log is too large") {
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

// TestEvidenceOfTPM: the whole exchange with a TPM, which keeps what the
// attester has issued.
func TestEvidenceOfTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: sim.Dial, Dir: filepath.Join(t.TempDir(), "keys")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := store.Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	a := newEvidenceAttester(t)
	challenge := bytes.Repeat([]byte{0x5e}, 32)
	a.activate = func(body map[string]any) ([]byte, []byte) {
		ak := unmarshalPublic(t, body["params"].(map[string]any)["public"])
		public, err := tpm2.Pub(*ak)
		if err != nil {
			t.Fatal(err)
		}
		a.chain = [][]byte{certificateFor(t, public.(*ecdsa.PublicKey), time.Hour)}
		return makeCredential(t, body["ek"], ak, challenge)
	}
	for range 2 {
		if _, err := a.attest(key); err != nil {
			t.Fatal(err)
		}
		if sent, _ := a.claims()["evidence"].(map[string]any); sent["attObj"] == "" || sent["tpmAttestation"] == nil {
			t.Errorf("evidence %v", sent)
		}
	}
	a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/client-attestation", "/challenge", "/client-attestation")
	if got := a.bodies[2]["secret"]; got != base64.StdEncoding.EncodeToString(challenge) {
		t.Errorf("activated %v", got)
	}
}

func unmarshalPublic(t *testing.T, encoded any) *tpm2.TPMTPublic {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded.(string))
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func makeCredential(t *testing.T, ek any, ak *tpm2.TPMTPublic, challenge []byte) (credential, secret []byte) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(ek.(string))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	template := tpm2.RSAEKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.(*rsa.PublicKey).N.Bytes()})
	encapsulation, err := tpm2.ImportEncapsulationKey(&template)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		t.Fatal(err)
	}
	credential, secret, err = tpm2.CreateCredential(rand.Reader, encapsulation, name.Buffer, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return credential, secret
}
