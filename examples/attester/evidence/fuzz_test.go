// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

const exchange = "../testdata/exchange/"

// recorded is what a device has sent once.
type recorded struct {
	Payload struct {
		Challenge string          `json:"challenge"`
		Evidence  json.RawMessage `json:"evidence"`
	} `json:"payload"`
}

type platform struct {
	AttObj   string `json:"attObj"`
	Platform struct {
		Quotes []struct {
			PCRs      map[string][]byte `json:"pcrValues"`
			Quoted    []byte            `json:"rawQuote"`
			Signature []byte            `json:"rawSignature"`
		} `json:"quotes"`
		EventLog []byte `json:"tcgEventLog"`
	} `json:"tpmAttestation"`
}

func readJSON(t testing.TB, name string, dest any) {
	t.Helper()
	text, err := os.ReadFile(exchange + name)
	if err == nil {
		err = json.Unmarshal(text, dest)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func recording(t testing.TB) (r recorded, p platform, statement map[string]any, attObj []byte) {
	t.Helper()
	readJSON(t, "4-client-attestation.request.decoded.json", &r)
	if err := json.Unmarshal(r.Payload.Evidence, &p); err != nil {
		t.Fatal(err)
	}
	attObj, err := base64.RawURLEncoding.DecodeString(p.AttObj)
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Statement map[string]any `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(attObj, &object); err != nil {
		t.Fatal(err)
	}
	return r, p, object.Statement, attObj
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// FuzzEvidence: whatever a device sends, it is refused with a code.
func FuzzEvidence(f *testing.F) {
	r, _, _, attObj := recording(f)
	f.Add([]byte(r.Payload.Evidence))
	f.Add([]byte(`{"attObj":"` + base64.RawURLEncoding.EncodeToString(attObj[:40]) + `"}`))
	f.Add([]byte(`{"attObj":"` + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0x81}, 100)) + `"}`))
	f.Add([]byte(`{"attObj":"oA","tpmAttestation":{"quotes":[{"pcrValues":{"0":null}}]}}`))
	ca, err := evidence.CreateCA(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := evidence.New(evidence.Config{Roots: roots(f), CA: ca})
	if err != nil {
		f.Fatal(err)
	}
	key := &newKey(f).PublicKey
	f.Fuzz(func(t *testing.T, text []byte) {
		result, err := verifier.Verify(evidence.Request{Challenge: "c", Thumbprint: "t", Key: key, Evidence: text})
		if refused := new(evidence.Error); !errors.As(err, &refused) || refused.Code == "" || result.Claims != nil {
			t.Fatalf("%v, %v", result, err)
		}
	})
}

// FuzzStatement: CBOR that is accepted is all of the text.
func FuzzStatement(f *testing.F) {
	_, _, _, attObj := recording(f)
	f.Add(attObj)
	f.Add([]byte("\xa2\x63fmt\x63tpm\x67attStmt\xa0"))
	f.Add([]byte("\xbf\x63fmt\x63tpm\xff"))
	f.Add([]byte("\xa2\x63fmt\x63tpm\x67attStmt\xa1\x63x5c\x81\x81\x81\x80"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := evidence.ParseStatement(raw)
		if refused := new(evidence.Error); err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		// No prefix of a statement is one, and nothing may follow it.
		if err == nil && (evidence.ParseStatement(raw[:len(raw)-1]) == nil || evidence.ParseStatement(append(bytes.Clone(raw), 0)) == nil) {
			t.Fatalf("%x is accepted with a byte more or less", raw)
		}
	})
}

// FuzzStructures: a TPM structure that is accepted is encoded as it was.
func FuzzStructures(f *testing.F) {
	_, p, statement, _ := recording(f)
	for _, name := range []string{"certInfo", "pubArea", "sig"} {
		f.Add(statement[name].([]byte))
	}
	f.Add(p.Platform.Quotes[0].Quoted)
	f.Add(p.Platform.Quotes[0].Signature)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, parse := range map[string]func([]byte) ([]byte, error){
			"TPMS_ATTEST": evidence.ParseAttest, "TPMT_SIGNATURE": evidence.ParseSignature, "TPMT_PUBLIC": evidence.ParsePublic,
		} {
			if again, err := parse(raw); err == nil && !bytes.Equal(again, raw) {
				t.Fatalf("%s: %x became %x", name, raw, again)
			}
		}
		evidence.ParseAK(raw)
	})
}

// FuzzLog: no log does harm, and none that replays has events that were left out.
func FuzzLog(f *testing.F) {
	_, p, _, _ := recording(f)
	pcrs := p.Platform.Quotes[0].PCRs
	real, err := os.ReadFile("../testdata/ubuntu-secure-boot.eventlog")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Platform.EventLog)
	f.Add(real)
	f.Add(real[:200])
	if events, firmware, err := evidence.Replay(p.Platform.EventLog, pcrs["0"], pcrs["4"], pcrs["7"]); err != nil || events != 11 || firmware == "" {
		f.Fatalf("%d events, %q, %v", events, firmware, err)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		if events, _, err := evidence.Replay(log, pcrs["0"], pcrs["4"], pcrs["7"]); err == nil && events != 11 {
			t.Fatalf("%d events replay, and there were 11", events)
		}
		zero := make([]byte, 32)
		if events, _, err := evidence.Replay(log, zero, zero, zero); err == nil && events != 0 {
			t.Fatalf("%d events, and nothing was measured", events)
		}
	})
}

// FuzzEnrol: the first request of an enrolment.
func FuzzEnrol(f *testing.F) {
	var request struct {
		EK             []byte   `json:"ek"`
		EKCertificates [][]byte `json:"ekCerts"`
		Parameters     struct {
			Public []byte `json:"public"`
		} `json:"params"`
	}
	readJSON(f, "1-attest.request.json", &request)
	f.Add(request.EK, request.EKCertificates[0], request.Parameters.Public)
	ca, err := evidence.CreateCA(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	var known struct {
		Root string `json:"ek_root"`
		Time int64  `json:"time"`
	}
	readJSON(f, "context.json", &known)
	root, err := x509.ParseCertificate(decodePEM(f, known.Root))
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := evidence.New(evidence.Config{
		Roots: roots(f, root), CA: ca, Now: func() time.Time { return time.Unix(known.Time, 0) },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, ek, certificate, ak []byte) {
		enrolment, err := verifier.Enrol(evidence.EnrolmentRequest{EK: ek, EKCertificates: [][]byte{certificate}, AK: ak})
		if refused := new(evidence.Error); err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if err == nil && (len(enrolment.Credential) == 0 || len(enrolment.Secret) == 0) {
			t.Fatal("no challenge")
		}
	})
}

// FuzzFiles: what an operator writes by mistake does no harm.
func FuzzFiles(f *testing.F) {
	for _, name := range []string{"registry.json", "reference.json"} {
		text, err := os.ReadFile(exchange + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for name, parse := range map[string]func([]byte) error{
			"registry":         func(b []byte) error { _, err := evidence.ParseRegistry(b); return err },
			"reference values": func(b []byte) error { _, err := evidence.ParseReference(b); return err },
		} {
			if err := parse(text); err != nil && !strings.HasPrefix(err.Error(), "evidence: "+name+": ") {
				t.Fatal(err)
			}
		}
	})
}
