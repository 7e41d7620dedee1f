// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestProtocolDocument: PROTOCOL.md shows this very exchange, names every member
// and every error code.
func TestProtocolDocument(t *testing.T) {
	document, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		record(t).write(t)
	}
	golden := readExchange(t)
	if *update {
		document = illustrate(t, document, golden)
		if err := os.WriteFile("PROTOCOL.md", document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shown := 0
	for name, value := range golden {
		if name == "context.json" || strings.HasSuffix(name, "attestation.request.json") || strings.HasSuffix(name, "attestation.response.json") {
			continue
		}
		if want := abbreviate(t, value); !bytes.Contains(document, []byte(want)) {
			t.Errorf("PROTOCOL.md does not show %s:\n%s", name, want)
		}
		shown++
	}
	if shown != 10 {
		t.Errorf("%d files shown, want 10", shown)
	}
	codes := 0
	for _, code := range []string{
		"invalid_request", "invalid_pop", "invalid_challenge", "unsupported_evidence", "unsupported_key", "invalid_evidence", "key_not_protected",
		"platform_evidence_required", "ak_not_enrolled", "invalid_ak", "invalid_session", "activation_failed", "untrusted_tpm", "policy_violation",
		"temporarily_unavailable",
	} {
		if bytes.Contains(document, []byte("| `"+code+"` |")) {
			codes++
		} else {
			t.Errorf("PROTOCOL.md does not explain %s", code)
		}
	}
	if codes != 15 {
		t.Errorf("%d codes, want 15", codes)
	}
}

// illustrate puts the files of the exchange into the document's JSON blocks, which
// come in this order.
func illustrate(t *testing.T, document []byte, golden exchange) []byte {
	t.Helper()
	parts := strings.Split(string(document), "```json\n")
	files := []string{
		"1-attest.request", "1-attest.response", "2-secret.request", "2-secret.response", "3-challenge.response",
		"4-client-attestation.request.decoded", "4-client-attestation.request.attObj", "4-client-attestation.response.decoded",
		"registry", "reference",
	}
	if len(parts) != len(files)+1 {
		t.Fatalf("PROTOCOL.md has %d JSON blocks, want %d", len(parts)-1, len(files))
	}
	for i, file := range files {
		_, after, _ := strings.Cut(parts[i+1], "```\n")
		parts[i+1] = abbreviate(t, golden[file+".json"]) + "```\n" + after
	}
	return []byte(strings.Join(parts, "```json\n"))
}

// abbreviate is a file as the document shows it: long strings cut.
func abbreviate(t *testing.T, value any) string {
	t.Helper()
	var cut func(any) any
	cut = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			short := map[string]any{}
			for name, member := range v {
				short[name] = cut(member)
			}
			return short
		case []any:
			var short []any
			for _, element := range v {
				short = append(short, cut(element))
			}
			return short
		case string:
			if len(v) > 64 {
				return v[:20] + "…"
			}
		}
		return v
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(cut(value)); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
