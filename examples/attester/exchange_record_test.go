// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// testdata/exchange is one run of the protocol, with what both sides knew
// beforehand: for those who write either side in another language, and to hold
// the format fixed. go test -run TestProtocolDocument -update makes it anew, and puts
// it into PROTOCOL.md.
var update = flag.Bool("update", false, "write testdata/exchange anew, and PROTOCOL.md's examples")

const exchangeDir = "testdata/exchange"

// An exchange is the files there, by name.
type exchange map[string]any

// record runs the protocol with a good device.
func record(t *testing.T) exchange {
	t.Helper()
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	x := exchange{"registry.json": w.registry, "reference.json": w.reference}
	call := func(name, path string, request any) object {
		t.Helper()
		text := ""
		if request != nil {
			x[name+".request.json"] = request
			text = string(encodeJSON(t, request))
		}
		answer := w.post(path, text)
		if answer.Code != 200 {
			t.Fatalf("%s: %d %s, logged %v", name, answer.Code, answer.Body, w.lastRecord())
		}
		x[name+".response.json"] = body(t, answer)
		return body(t, answer)
	}

	answer := call("1-attest", "/tpm/attest", w.d.enrolment())
	secret, err := w.d.activate(w.d.akKey, w.bytes(answer, "credential"), w.bytes(answer, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	answer = call("2-secret", "/tpm/secret", object{"session": answer["session"], "secret": secret})
	var chain [][]byte
	for _, certificate := range answer["chain"].([]any) {
		chain = append(chain, w.bytes(object{"c": certificate}, "c"))
	}
	k := w.instanceKey()
	defer k.flush()
	answer = call("3-challenge", "/challenge", nil)
	a := w.attempt(k, chain)
	a.challenge = answer["challenge"].(string)
	a.proof = w.d.prove(k, a.challenge, chain, a.pcrs)
	r := a.request()
	header := clone(r.header)
	header["alg"], header["jwk"] = "ES256", k.Public()
	x["4-client-attestation.request.decoded.json"] = object{"header": header, "payload": r.claims}
	x["4-client-attestation.request.attObj.json"] = a.proof.statement
	answer = call("4-client-attestation", "/client-attestation", object{"request": r.compact(t)})
	_, claims := w.open(answer["client_attestation"].(string))
	x["4-client-attestation.response.decoded.json"] = object{"header": object{"typ": "oauth-client-attestation+jwt", "alg": "ES256", "kid": "attester-1"}, "payload": claims}

	caKey, err := x509.MarshalPKCS8PrivateKey(w.ca.Key())
	if err != nil {
		t.Fatal(err)
	}
	x["context.json"] = object{
		"time":         w.now.Unix(),
		"attester":     attesterURL,
		"client_id":    clientID,
		"attester_key": jose.JSONWebKey{Key: &w.key.PublicKey, KeyID: "attester-1"},
		"ek_root":      pemText("CERTIFICATE", w.d.maker.Root.Raw),
		"ak_ca":        pemText("CERTIFICATE", w.ca.Certificate().Raw),
		"ak_ca_key":    pemText("PRIVATE KEY", caKey), // of this run alone, so that it can be replayed
	}
	return x
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// normal is what v looks like after it was JSON.
func normal(t *testing.T, v any) any {
	t.Helper()
	var decoded any
	if err := json.Unmarshal(encodeJSON(t, v), &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

func (x exchange) write(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(exchangeDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range x {
		text, err := json.MarshalIndent(normal(t, value), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(exchangeDir, name), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readExchange(t testing.TB) exchange {
	t.Helper()
	names, err := filepath.Glob(exchangeDir + "/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", exchangeDir, len(names), err)
	}
	x := exchange{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x[filepath.Base(name)] = value
	}
	return x
}
