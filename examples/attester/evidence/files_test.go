// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

func decodePEM(t testing.TB, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %.80q", text)
	}
	return block.Bytes
}

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReference(t *testing.T) {
	release := func(members string) string {
		return `{"policy": "p", "pcrs": [0, 7], "software": [{"swname": "os", "swversion": "1", "verdict": "affirming"` + members + `}]}`
	}
	cases := map[string]string{
		// Good.
		`{"policy": "p", "pcrs": [7]}`:                                                                                             "",
		release(`, "pcrs": {"0": "` + digest + `"}`):                                                                               "",
		release(`, "first_events": {"7": ["` + digest + `"]}`):                                                                     "",
		release(`, "pcrs": {"7": "` + digest + `"}, "oemboot": true`):                                                              "",
		`{"policy": "p", "pcrs": [7], "secure_boot_authorities": ["` + digest + `"]}`:                                              "",
		`{"policy": "p", "pcrs": [15,0], "attest_unknown_software": true}`:                                                         "",
		`{"policy": "p", "pcrs": [0], "attest_without_secure_boot": true} ` + "\n":                                                 "",
		`{"policy":"p","pcrs":[0],"software":[{"swname":"os","swversion":"1","verdict":"refused","pcrs":{"0":"` + digest + `"}}]}`: "",

		// Not good.
		``:                                          "EOF",
		`{"pcrs": [0]}`:                             "policy has no name",
		`{"policy": "p"}`:                           "pcrs is empty",
		`{"policy": "p", "pcrs": []}`:               "pcrs is empty",
		`{"policy": "p", "pcrs": [-1]}`:             "not 0 to 15",
		`{"policy": "p", "pcrs": [16]}`:             "not 0 to 15",
		`{"policy": "p", "pcrs": [0, 0]}`:           "twice",
		`{"policy": "p", "pcrs": ["0"]}`:            "cannot unmarshal",
		`{"policy": "p", "pcrs": [0], "x":1}`:       "unknown field",
		`{"policy": "p", "pcrs": [0], "pcrs": [1]}`: "duplicate",
		`{"policy": "p", "pcrs": [0], "secure_boot_authorities": ["` + digest + `"]}`:     "needs PCR 7",
		`{"policy": "p", "pcrs": [7], "secure_boot_authorities": ["` + digest[2:] + `"]}`: "is not a SHA-256 digest",
		release(``):                                                   "every device would match",
		release(`, "first_events": {"0": []}`):                        "every device would match",
		release(`, "pcrs": {"4": "` + digest + `"}`):                  `PCR "4" is not one of pcrs`,
		release(`, "pcrs": {"00": "` + digest + `"}`):                 `PCR "00" is not one of pcrs`,
		release(`, "pcrs": {"0": "` + digest[1:] + `"}`):              "PCR 0:",
		release(`, "pcrs": {"0": "x"}`):                               "PCR 0:",
		release(`, "first_events": {"0": ["x"]}`):                     "PCR 0:",
		release(`, "pcrs": {"0": "` + digest + `"}, "oemboot": true`): "no value for PCR 7",
		release(`, "verdict": "good"`):                                "duplicate",
		`{"policy":"p","pcrs":[0],"software":[{"swname":"os","swversion":"1","verdict":"none","pcrs":{"0":"` + digest + `"}}]}`: `verdict "none"`,
		`{"policy":"p","pcrs":[0],"software":[{"swname":"os","swversion":"1","pcrs":{"0":"` + digest + `"}}]}`:                  `verdict ""`,
		`{"policy":"p","pcrs":[0],"software":[{"swversion":"1","verdict":"warning","pcrs":{"0":"` + digest + `"}}]}`:            "swname or swversion",
	}
	checkFiles(t, cases, 32, "evidence: reference values: ", func(text []byte) (bool, error) {
		r, err := evidence.ParseReference(text)
		return r != nil, err
	})
}

func TestParseRegistry(t *testing.T) {
	srk := func(change func(*tpm2.TPMTPublic)) string {
		area := tpm2.ECCSRKTemplate
		point, err := newKey(t).PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})
		change(&area)
		return base64.StdEncoding.EncodeToString(tpm2.Marshal(area))
	}
	model := func(members string) string { return `{"models": {"m": {` + members + `}}}` }
	device := func(members string) string {
		return `{"models": {"m": {"hwmodel": "X1"}}, "devices": [{` + members + `}]}`
	}
	good := `"ek": "` + digest + `", "model": "m"`
	cases := map[string]string{
		// Good.
		`{}`: "",
		`{"attest_unlisted_devices": true, "blocked": ["` + digest + `"]}`: "",
		device(good): "",
		device(good + `, "srk": "` + srk(func(*tpm2.TPMTPublic) {}) + `"`): "",
		model(`"hwmodel": "X1", "oemid": 32473, "hwversion": "B"`):         "",
		model(`"hwmodel": "X1", "oemid": "ACME"`):                          "",
		model(`"hwmodel": "X1", "oemid": "AAAA"`):                          "",
		model(`"hwmodel": "X1", "oemid": "AAAAAAAAAAAAAAAAAAAAAA"`):        "",
		model(`"hwmodel": "` + strings.Repeat("x", 32) + `"`):              "",

		// Not good.
		`{"device": []}`:    "unknown field",
		`[]`:                "cannot unmarshal",
		model(`"oemid": 1`): "hwmodel has not",
		model(`"hwmodel": "` + strings.Repeat("x", 33) + `"`):           "hwmodel has not",
		model(`"hwmodel": "X1", "oemid": 0`):                            "Private Enterprise Number",
		model(`"hwmodel": "X1", "oemid": -1`):                           "Private Enterprise Number",
		model(`"hwmodel": "X1", "oemid": 1.5`):                          "Private Enterprise Number",
		model(`"hwmodel": "X1", "oemid": 1e10`):                         "Private Enterprise Number",
		model(`"hwmodel": "X1", "oemid": "ACMECORP"`):                   "16 or 3 bytes",
		model(`"hwmodel": "X1", "oemid": true`):                         "neither",
		device(`"model": "m"`):                                          "is not a SHA-256 digest",
		device(`"ek": "` + strings.ToUpper(digest) + `", "model": "m"`): "lower-case",
		device(`"ek": "` + digest + `", "model": "n"`):                  `no model "n"`,
		device(good + `}, {` + good):                                    "twice",
		device(good + `, "srk": "!"`):                                   "srk: illegal base64",
		device(good + `, "srk": "AAAA"`):                                "srk: malformed",
		device(good + `, "srk": "` + srk(func(a *tpm2.TPMTPublic) { a.ObjectAttributes.FixedTPM = false }) + `"`):   "not a storage key",
		device(good + `, "srk": "` + srk(func(a *tpm2.TPMTPublic) { a.ObjectAttributes.Restricted = false }) + `"`): "not a storage key",
		device(good + `, "srk": "` + srk(func(a *tpm2.TPMTPublic) { *a = tpm2.ECCSRKTemplate }) + `"`):              "srk:",
		`{"blocked": ["` + digest[2:] + `"]}`: "blocked:",
	}
	checkFiles(t, cases, 29, "evidence: registry: ", func(text []byte) (bool, error) {
		r, err := evidence.ParseRegistry(text)
		return r != nil, err
	})
}

func checkFiles(t *testing.T, cases map[string]string, want int, prefix string, parse func([]byte) (bool, error)) {
	t.Helper()
	for text, want := range cases {
		parsed, err := parse([]byte(text))
		if want == "" && (err != nil || !parsed) {
			t.Errorf("%s: %v", text, err)
		}
		if want != "" && (err == nil || parsed || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), prefix)) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
	if len(cases) != want {
		t.Errorf("%d cases, want %d", len(cases), want)
	}
}

// TestLoad: errors name the file.
func TestLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file.json")
	for _, step := range []struct{ text, want string }{{"", "no such file"}, {"{", "unexpected EOF"}} {
		if step.text != "" {
			if err := os.WriteFile(name, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, registryErr := evidence.LoadRegistry(name)
		_, referenceErr := evidence.LoadReference(name)
		for _, err := range []error{registryErr, referenceErr} {
			if err == nil || !strings.Contains(err.Error(), step.want) || !strings.Contains(err.Error(), name) {
				t.Errorf("%q: %v", step.text, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ca, err := evidence.CreateCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]evidence.Config{"nothing": {}, "no CA": {Roots: roots(t)}, "no roots": {CA: ca}} {
		if v, err := evidence.New(cfg); v != nil || err == nil {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	other, err := evidence.CreateCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if ca, err := evidence.NewCA(ca.Certificate(), other.Key()); ca != nil || err == nil {
		t.Errorf("key of another CA: %v", err)
	}
}
