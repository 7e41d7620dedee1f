// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestAroundTheKey: what stands around a key is no hindrance, and stays octet for
// octet, whatever is done with the key.
func TestAroundTheKey(t *testing.T) {
	sim := tpmtest.Simulator(t)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"Of": "the key"}, Bytes: []byte{1, 2, 3}}))
	const parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	for name, around := range map[string]func(key string) string{
		"byte order mark":    func(key string) string { return "\xef\xbb\xbf" + key },
		"comments":           func(key string) string { return "# before\n\n" + key + "\n# after, without an end" },
		"dashes":             func(key string) string { return "----- my key -----\n" + key + "----------\n" },
		"EC PARAMETERS":      func(key string) string { return parameters + key },
		"certificate before": func(key string) string { return certificate + key },
		"certificate after":  func(key string) string { return key + "subject=CN = key\n" + certificate },
		"Ctrl-Z":             func(key string) string { return key + "\x1a" },
		"no newline":         func(key string) string { return strings.TrimSuffix(key, "\n") },
		"CRLF":               func(key string) string { return strings.ReplaceAll("# a file\n"+key+certificate, "\n", "\r\n") },
		"headers": func(key string) string {
			return strings.Replace(key, "KEY-----\n", "KEY-----\nComment: mine\nFor: example.com\n\n", 1)
		},
		"headers and CRLF": func(key string) string {
			return strings.ReplaceAll(strings.Replace(key, "KEY-----\n", "KEY-----\nComment: mine\n\n", 1), "\n", "\r\n")
		},
		"one line": func(key string) string { return oneLine(key) },
		"everything": func(key string) string {
			return "\xef\xbb\xbf# file\n" + parameters + certificate + key + "\n# end\n" + certificate + "\x1a"
		},
		"torn certificate after":           func(key string) string { return key + certificate[:50] },
		"torn in its first line":           func(key string) string { return key + "-----BEGIN CERTIF" },
		"torn in its last line":            func(key string) string { return key + certificate[:len(certificate)-9] },
		"torn before the key":              func(key string) string { return certificate[:50] + "\n" + key },
		"damaged certificate after":        func(key string) string { return key + strings.Replace(certificate, "AQID", "AQ!D", 1) },
		"torn certificate after a comment": func(key string) string { return key + "subject=-----BEGIN X\n" + certificate[:50] },
		"a damaged other one":              func(key string) string { return "-----BEGIN X-----\n!\n-----END X-----\n" + key },
	} {
		t.Run(name, func(t *testing.T) {
			// The flag is wrong, so that the key's own block changes.
			k := foreignKey{password: "", noDA: false, emptyAuth: false}
			key := string(k.file(t, sim))
			text := around(key)
			start := strings.Index(text, "-----BEGIN TSS2")
			end := strings.Index(text, "-----END TSS2")
			before, after := text[:start], text[end:]

			r := newRig(t, sim)
			path := put(t, r, "key", []byte(text))
			check := func(what string, ours int) {
				t.Helper()
				now, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(string(now), before) || !strings.Contains(string(now), after) {
					t.Errorf("%s has made\n%q of\n%q", what, now, text)
				}
				if n := strings.Count(string(now), "-----BEGIN TPM2 "); n != ours {
					t.Errorf("after %s there are %d blocks of ours, want %d", what, n, ours)
				}
				if headers := strings.Count(text, ": "); strings.Count(string(now), ": ") != headers {
					t.Errorf("%s has lost headers:\n%s", what, now)
				}
				if strings.Contains(name, "CRLF") && strings.Count(string(now[:strings.Index(string(now), "-----BEGIN TPM2")+1]), "\n") != strings.Count(string(now), "\r\n") {
					t.Errorf("%s has changed ends of lines: %q", what, now)
				}
			}
			// No certificate here is one; and what is none for its PEM is damaged, too.
			var damaged []string
			for line := range strings.Lines(text) {
				rest, begins := strings.CutPrefix(line, "-----BEGIN CERTIF")
				if begins && (rest == "" || strings.HasPrefix(rest, "ICATE")) {
					damaged = append(damaged, "CERTIF"+strings.TrimRight(rest, "-\r\n"))
				}
				if strings.HasPrefix(line, "-----BEGIN X") {
					damaged = append(damaged, "X")
				}
			}
			if found := describe(t, r.Store, "key").Damaged; !slices.Equal(found, damaged) {
				t.Errorf("damaged are %q, want %q", found, damaged)
			}
			opened := open(t, r.Store, "key")
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Fatalf("Open has changed the file: %v", err)
			}
			sign(t, opened)
			check("Sign", 1)
			if describe(t, r.Store, "key").PIN {
				t.Error("the flag was not corrected")
			}
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			check("Persist", 2)
			sign(t, open(t, r.Store, "key"))
			if err := r.Unpersist(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			check("Unpersist", 1)
			sign(t, open(t, r.Store, "key"))
		})
	}
}

// oneLine puts all of a key's base64 in one line.
func oneLine(key string) string {
	block, _ := pem.Decode([]byte(key))
	whole := strings.Split(strings.TrimSpace(string(pem.EncodeToMemory(block))), "\n")
	return whole[0] + "\n" + strings.Join(whole[1:len(whole)-1], "") + "\n" + whole[len(whole)-1] + "\n"
}
