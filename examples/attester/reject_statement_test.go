// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectStatement: the encoding of the statement.
func TestRejectStatement(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) { w.reference = nil })
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()

	// pairs encodes a map by hand: a map in Go has each key once.
	pairs := func(a *attempt, parts ...any) []byte {
		out := []byte{0xa0 + byte(len(parts)/2)}
		for _, part := range parts {
			out = append(out, encodeCBOR(a.t, part)...)
		}
		return out
	}
	// statement encodes the good statement, and more.
	statement := func(a *attempt, more ...any) []byte {
		var parts []any
		for _, name := range []string{"ver", "alg", "x5c", "sig", "certInfo", "pubArea"} {
			parts = append(parts, name, a.proof.statement[name])
		}
		return pairs(a, append(parts, more...)...)
	}
	object := func(a *attempt, statement []byte) []byte {
		return append(append([]byte{0xa2}, append(encodeCBOR(a.t, "fmt"), encodeCBOR(a.t, "tpm")...)...),
			append(encodeCBOR(a.t, "attStmt"), statement...)...)
	}
	raw := func(make func(a *attempt) []byte) func(*attempt) {
		return func(a *attempt) { a.proof.attObj = make(a) }
	}
	set := func(name string, value any) func(*attempt) {
		return func(a *attempt) { a.proof.statement[name] = value }
	}

	// What these tests encode by hand is good before it is spoilt.
	a := w.attempt(k, chain)
	a.proof.attObj = object(a, statement(a))
	w.wantAttestation(w.send(a.request()))

	w.run(t, k, chain, []refusal{
		{"a member twice", "invalid_evidence", "duplicate map key", raw(func(a *attempt) []byte {
			return object(a, statement(a, "sig", []byte("another")))
		})},
		{"a member twice, both alike", "invalid_evidence", "duplicate map key", raw(func(a *attempt) []byte {
			return object(a, statement(a, "ver", "2.0"))
		})},
		{"fmt twice", "invalid_evidence", "duplicate map key", raw(func(a *attempt) []byte {
			o := object(a, statement(a))
			o[0] = 0xa3
			return append(o, append(encodeCBOR(a.t, "fmt"), encodeCBOR(a.t, "none")...)...)
		})},
		{"an extra member", "invalid_evidence", "unknown field", set("extra", 1)},
		{"an extra member of the object", "invalid_evidence", "unknown field", raw(func(a *attempt) []byte {
			return encodeCBOR(a.t, map[string]any{"fmt": "tpm", "attStmt": a.proof.statement, "authData": []byte{}})
		})},
		{"a member that is no text", "invalid_evidence", "unknown field", raw(func(a *attempt) []byte {
			return object(a, statement(a, 1, 1))
		})},
		{"a member in another case", "invalid_evidence", "unknown field", func(a *attempt) {
			a.proof.statement["CertInfo"] = a.proof.statement["certInfo"]
		}},
		{"ver is missing", "unsupported_evidence", "version", func(a *attempt) { delete(a.proof.statement, "ver") }},
		{"alg is missing", "invalid_evidence", "alg of the statement is 0", func(a *attempt) { delete(a.proof.statement, "alg") }},
		{"sig is missing", "invalid_evidence", "no sig", func(a *attempt) { delete(a.proof.statement, "sig") }},
		{"certInfo is missing", "invalid_evidence", "no certInfo", func(a *attempt) { delete(a.proof.statement, "certInfo") }},
		{"pubArea is missing", "invalid_evidence", "no pubArea", func(a *attempt) { delete(a.proof.statement, "pubArea") }},
		{"pubArea is null", "invalid_evidence", "pubArea", set("pubArea", nil)},
		{"sig is text", "invalid_evidence", "attStmt", set("sig", "text")},
		{"sig is an array of numbers", "invalid_evidence", "attStmt", set("sig", []int{0, 24, 0, 11})},
		{"alg is too large", "invalid_evidence", "attStmt", set("alg", uint64(1<<63))},
		{"alg is a float", "invalid_evidence", "attStmt", set("alg", 7.5)},
		{"x5c is a byte string", "invalid_evidence", "attStmt", set("x5c", chain[0])},
		{"ver 1.2", "unsupported_evidence", "version", set("ver", "1.2")},
		{"another format", "unsupported_evidence", "format \"packed\"", func(a *attempt) { a.proof.format = "packed" }},
		{"format is no text", "invalid_evidence", "attObj", func(a *attempt) { a.proof.format = 5 }},
		{"no format", "unsupported_evidence", "format \"\"", func(a *attempt) { a.proof.format = nil }},
		{"bytes after it", "invalid_evidence", "attObj", raw(func(a *attempt) []byte { return append(object(a, statement(a)), 0) })},
		{"cut", "invalid_evidence", "attObj", raw(func(a *attempt) []byte {
			o := object(a, statement(a))
			return o[:len(o)-1]
		})},
		{"indefinite-length map", "invalid_evidence", "indefinite-length", raw(func(a *attempt) []byte {
			o := object(a, statement(a))
			o[0] = 0xbf
			return append(o, 0xff)
		})},
		{"indefinite-length byte string", "invalid_evidence", "indefinite-length", raw(func(a *attempt) []byte {
			return object(a, append(append(pairs(a, "sig", 0)[:5], 0x5f, 0x41, 0x00), 0xff))
		})},
		{"a tag", "invalid_evidence", "tag", raw(func(a *attempt) []byte { return append([]byte{0xd9, 0xd9, 0xf7}, object(a, statement(a))...) })},
		{"deep nesting", "invalid_evidence", "nested level", raw(func(a *attempt) []byte {
			return object(a, bytes.Repeat([]byte{0x81}, 5000))
		})},
		{"deep nesting inside", "invalid_evidence", "nested level", set("x5c", []any{[]any{[]any{[]any{}}}})},
		{"many members", "invalid_evidence", "exceeded max number of key-value pairs", raw(func(a *attempt) []byte {
			return object(a, append([]byte{0xb9, 0xff, 0xff}, bytes.Repeat([]byte{0}, 2*0xffff)[:20_000]...))
		})},
		{"a length of 2^62", "invalid_evidence", "attObj", raw(func(a *attempt) []byte {
			return []byte{0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0}
		})},
		{"more than 32 kB", "invalid_evidence", "more than 32768 bytes", set("certInfo", make([]byte, 33<<10))},
		{"null", "unsupported_evidence", "format \"\"", raw(func(*attempt) []byte { return []byte{0xf6} })},
		{"an array", "invalid_evidence", "attObj", raw(func(a *attempt) []byte { return encodeCBOR(a.t, []any{"tpm", a.proof.statement}) })},
	}, 34)
}

// TestRejectEvidence: the JSON around the statement.
func TestRejectEvidence(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	good := func(a *attempt) (attObj string) { return a.proof.encode(t)["attObj"].(string) }
	refused := 0
	for name, tc := range map[string]struct {
		code, reason string
		evidence     func(*attempt) any
	}{
		"missing":              {"platform_evidence_required", "no evidence", func(*attempt) any { return nil }},
		"an array":             {"invalid_evidence", "evidence:", func(*attempt) any { return []int{} }},
		"empty":                {"invalid_evidence", "no attObj", func(*attempt) any { return object{} }},
		"attObj is an object":  {"invalid_evidence", "evidence:", func(*attempt) any { return object{"attObj": object{}} }},
		"attObj is padded":     {"invalid_evidence", "attObj is not base64url", func(a *attempt) any { return object{"attObj": good(a) + "="} }},
		"attObj has a newline": {"invalid_evidence", "attObj", func(a *attempt) any { return object{"attObj": good(a)[:8] + "\n" + good(a)[8:]} }},
		"attObj in standard base64": {"invalid_evidence", "attObj is not base64url", func(a *attempt) any {
			return object{"attObj": "+" + strings.Repeat("/", 43)}
		}},
		"no tpmAttestation": {"platform_evidence_required", "no quote", func(a *attempt) any { return object{"attObj": good(a)} }},
		"tpmAttestation is null": {"platform_evidence_required", "no quote", func(a *attempt) any {
			return object{"attObj": good(a), "tpmAttestation": nil}
		}},
		"quotes are numbers": {"invalid_evidence", "evidence:", func(a *attempt) any {
			return object{"attObj": good(a), "tpmAttestation": object{"quotes": []int{1}}}
		}},
		"log in base64url": {"invalid_evidence", "evidence:", func(a *attempt) any {
			return object{"attObj": good(a), "tpmAttestation": object{"tcgEventLog": "-_-_"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, w.d.t = t, t
			a := w.attempt(k, chain)
			r := a.request()
			r.claims["evidence"] = tc.evidence(a)
			if w.wantRefusal(w.send(r), http.StatusBadRequest, tc.code, tc.reason); !t.Failed() {
				refused++
			}
		})
	}
	w.t, w.d.t = t, t
	if refused != 11 {
		t.Errorf("%d refused for the right reason, want 11", refused)
	}

	// Bits that belong to no byte: a statement has one text. Where there are none of
	// these, another certificate makes some.
	a := w.attempt(k, chain)
	for tries := 0; len(good(a))%4 == 0; tries++ {
		if tries == 100 {
			t.Fatal("no statement whose length is not a multiple of 3")
		}
		a = w.attempt(k, w.enrol())
	}
	r := a.request()
	r.claims["evidence"] = object{"attObj": unusedBit(good(a))}
	w.wantRefusal(w.send(r), http.StatusBadRequest, "invalid_evidence", "attObj is not base64url")

	// A member twice, at each depth, where go-jose would not put it.
	a = w.attempt(k, chain)
	evidence := string(encodeJSON(t, a.proof.encode(t)))
	for _, member := range []string{`"attObj":`, `"quotes":`, `"hashAlgo":`, `"rawQuote":`, `"0":`, `"tcgEventLog":`} {
		if strings.Count(evidence, member) != 1 {
			t.Fatalf("no %s in the evidence", member)
		}
		a = w.attempt(k, chain)
		r := a.request()
		r.claims["evidence"] = rawJSON(strings.Replace(evidence, member, member+`null,`+member, 1))
		w.wantRefusal(w.send(r), http.StatusBadRequest, "invalid_evidence", "duplicate")
	}
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
