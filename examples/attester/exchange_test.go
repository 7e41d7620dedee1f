// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/keystore"
)

// shape is a value without its contents: members and their types, and how
// strings are encoded as far as one can see.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		shapes := map[string]any{}
		for name, member := range v {
			shapes[name] = shape(member)
		}
		return shapes
	case []any:
		var shapes []any
		for _, element := range v {
			shapes = append(shapes, shape(element))
		}
		return shapes
	case string:
		switch {
		case strings.HasPrefix(v, "eyJ"):
			return fmt.Sprintf("JWS of %d parts", strings.Count(v, ".")+1)
		case strings.ContainsAny(v, "-_") && !strings.ContainsAny(v, "+/= :"):
			return "base64url or text"
		}
		return "string"
	default:
		return reflect.TypeOf(v).Kind().String()
	}
}

// loose takes "base64url or text", which is a matter of chance, for "string".
func loose(shape any) string {
	return strings.ReplaceAll(fmt.Sprint(shape), "base64url or text", "string")
}

// TestExchangeFormat: a run of today looks like the one in testdata.
func TestExchangeFormat(t *testing.T) {
	fresh := record(t)
	golden := readExchange(t)
	if got, want := slices.Sorted(maps.Keys(fresh)), slices.Sorted(maps.Keys(golden)); !slices.Equal(got, want) {
		t.Fatalf("files %v, want %v", got, want)
	}
	for name, want := range golden {
		if got := normal(t, fresh[name]); loose(shape(got)) != loose(shape(want)) {
			t.Errorf("%s has the form\n%v, want\n%v", name, shape(got), shape(want))
		}
	}
	if len(golden) != 13 {
		t.Errorf("%d files, want 13", len(golden))
	}

	// The values that do not change from run to run.
	for _, file := range []string{"4-client-attestation.response.decoded.json", "3-challenge.response.json"} {
		got, want := normal(t, fresh[file]).(object), golden[file].(object)
		if payload, ok := got["payload"].(object); ok {
			delete(payload, "cnf")
			delete(want["payload"].(object), "cnf")
		}
		delete(got, "challenge")
		delete(want, "challenge")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%v, want\n%v", file, got, want)
		}
	}
}

// TestExchangeEncodings: each string in testdata decodes as PROTOCOL.md says.
func TestExchangeEncodings(t *testing.T) {
	golden := readExchange(t)
	counts := map[string]int{}
	decode := func(file, path string, encoding *base64.Encoding, kind string) []byte {
		t.Helper()
		value := golden[file]
		for part := range strings.SplitSeq(path, "/") {
			if list, ok := value.([]any); ok {
				value = list[0]
				continue
			}
			value = value.(object)[part]
		}
		raw, err := encoding.Strict().DecodeString(value.(string))
		if err != nil || len(raw) == 0 {
			t.Errorf("%s %s: %v", file, path, err)
		}
		counts[kind]++
		return raw
	}
	std, url := base64.StdEncoding, base64.RawURLEncoding
	for file, paths := range map[string][]string{
		"1-attest.request.json":  {"ek", "ekCerts/0", "params/public"},
		"1-attest.response.json": {"credential", "secret"},
		"2-secret.request.json":  {"secret"},
		"2-secret.response.json": {"chain/0"},
		"4-client-attestation.request.decoded.json": {
			"payload/evidence/tpmAttestation/tcgEventLog",
			"payload/evidence/tpmAttestation/quotes/0/rawQuote",
			"payload/evidence/tpmAttestation/quotes/0/rawSignature",
			"payload/evidence/tpmAttestation/quotes/0/pcrValues/7",
		},
	} {
		for _, path := range paths {
			decode(file, path, std, "base64")
		}
	}
	decode("3-challenge.response.json", "challenge", url, "base64url")
	attObj := decode("4-client-attestation.request.decoded.json", "payload/evidence/attObj", url, "base64url")
	if counts["base64"] != 11 || counts["base64url"] != 2 {
		t.Errorf("decoded %v", counts)
	}

	var statement struct {
		Format    string         `cbor:"fmt"`
		Statement map[string]any `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(attObj, &statement); err != nil || statement.Format != "tpm" {
		t.Fatalf("attObj: %v", err)
	}
	kinds := map[string]string{"ver": "string", "alg": "int64", "x5c": "[]interface {}", "sig": "[]uint8", "certInfo": "[]uint8", "pubArea": "[]uint8"}
	got := map[string]string{}
	for name, value := range statement.Statement {
		got[name] = fmt.Sprintf("%T", value)
	}
	if !maps.Equal(got, kinds) {
		t.Errorf("attStmt is of %v, want %v", got, kinds)
	}
}

// TestExchangeReplay: what was accepted then is accepted now, with the same
// result.
func TestExchangeReplay(t *testing.T) {
	golden := readExchange(t)
	known := golden["context.json"].(object)
	now := time.Unix(int64(known["time"].(float64)), 0)
	ca, err := evidence.NewCA(parsePEM(t, known["ak_ca"], x509.ParseCertificate), parsePEM(t, known["ak_ca_key"], x509.ParsePKCS8PrivateKey).(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	registry, err := evidence.LoadRegistry(exchangeDir + "/registry.json")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := evidence.LoadReference(exchangeDir + "/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := evidence.NewRoots([]*x509.Certificate{parsePEM(t, known["ek_root"], x509.ParseCertificate)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := evidence.New(evidence.Config{
		Roots: roots,
		CA:    ca, Registry: registry, Reference: reference, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}

	var enrolment struct {
		EK             []byte   `json:"ek"`
		EKCertificates [][]byte `json:"ekCerts"`
		Parameters     struct {
			Public []byte `json:"public"`
		} `json:"params"`
	}
	if err := json.Unmarshal(encodeJSON(t, golden["1-attest.request.json"]), &enrolment); err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Enrol(evidence.EnrolmentRequest{EK: enrolment.EK, EKCertificates: enrolment.EKCertificates, AK: enrolment.Parameters.Public}); err != nil {
		t.Errorf("enrolment: %v", err)
	}

	request := golden["4-client-attestation.request.json"].(object)["request"].(string)
	signed, err := jose.ParseSignedCompact(request, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	key := signed.Signatures[0].Protected.JSONWebKey.Key.(*ecdsa.PublicKey)
	payload, err := signed.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Challenge string          `json:"challenge"`
		Evidence  json.RawMessage `json:"evidence"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	thumbprint, err := keystore.Thumbprint(key)
	if err != nil {
		t.Fatal(err)
	}
	result, err := verifier.Verify(evidence.Request{Challenge: claims.Challenge, Key: key, Thumbprint: thumbprint, Evidence: claims.Evidence})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := jwt.ParseSigned(golden["4-client-attestation.response.json"].(object)["client_attestation"].(string), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var attesterKey jose.JSONWebKey
	if err := attesterKey.UnmarshalJSON(encodeJSON(t, known["attester_key"])); err != nil {
		t.Fatal(err)
	}
	want := object{}
	if err := issued.Claims(attesterKey.Key, &want); err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{"sub", "iat", "exp", "cnf"} {
		delete(want, claim)
	}
	if got := normal(t, result.Claims); !reflect.DeepEqual(got, any(want)) {
		t.Errorf("claims\n%v, want\n%v", got, want)
	}
}

func parsePEM[T any](t *testing.T, text any, parse func([]byte) (T, error)) T {
	t.Helper()
	block, _ := pem.Decode([]byte(text.(string)))
	if block == nil {
		t.Fatalf("no PEM: %v", text)
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
