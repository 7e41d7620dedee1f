// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

// TestRegistryLines: in a registry of 5,000 devices, one line each, whatever is wrong
// in one is said with the line, and with the device where it has a name.
func TestRegistryLines(t *testing.T) {
	const wrong = 904
	ek := func(i int) string { return fingerprintOf(fmt.Sprint(i)) }
	lines := []string{`{"models": {"m": {"hwmodel": "X1"},`, `  "n": {"hwmodel": "X2"}},`, `"devices": [`}
	for i := range 1500 {
		lines = append(lines, fmt.Sprintf(`  {"ek": %q, "model": "m"},`, ek(i)))
	}
	lines = append(lines, fmt.Sprintf(`  {"ek": %q, "model": "n"}], "blocked": [`, ek(-1)), fmt.Sprintf("%q]}", ek(-2)))
	file := func(line string) []byte {
		lines[wrong-1] = line
		return []byte(strings.Join(lines, "\n"))
	}
	if _, err := evidence.ParseRegistry(file(fmt.Sprintf(`  {"ek": %q, "model": "n"},`, ek(-3)))); err != nil {
		t.Fatal(err)
	}
	mine := ek(-3)
	for line, want := range map[string]string{
		`{"ek": "` + strings.ToUpper(mine) + `", "model": "m"},`: "line 904: devices[900].ek: device: ek \"" + strings.ToUpper(mine),
		`{"ek": "` + mine[1:] + `", "model": "m"},`:              "line 904: devices[900].ek: device: ek \"" + mine[1:],
		`{"model": "m"},`:                                                 "line 904: devices[900].ek: device: ek \"\"",
		`{"ek": "` + mine + `", "model": "o"},`:                           `line 904: devices[900].model: device ` + mine + `: no model "o"`,
		`{"ek": "` + mine + `"},`:                                         `line 904: devices[900].model: device ` + mine + `: no model ""`,
		`{"ek": "` + ek(7) + `", "model": "m"},`:                          "line 904: devices[900]: device " + ek(7) + " is there twice: also on line 11",
		`{"ek": "` + mine + `", "model": "m", "srk": "!"},`:               "line 904: devices[900].srk: device " + mine + ": srk",
		`{"ek": "` + mine + `", "model": "m", "srk": 5},`:                 "line 904: devices[900].srk: cannot unmarshal: this is no text",
		`{"ek": "` + mine + `", "model": "m", "serial": "5"},`:            `line 904: devices[900].serial: unknown field "serial"`,
		`{"ek": "` + mine + `", "Model": "m"},`:                           "line 904: devices[900].Model: a member's name is in the wrong case",
		`{"ek": "` + mine + `", "model": "m", "model": "n"},`:             "line 904: devices[900].model: duplicate",
		`"` + mine + `",`:                                                 "line 904: devices[900]: cannot unmarshal: this is no object",
		`{"ek": "` + mine + `" "model": "m"},`:                            "line 904: invalid character",
		`{"ek": "` + mine + `", "model": "m"},,`:                          "line 904: invalid character",
		`{"ek": "` + mine + `", "model": "m"}], "blocked": ["x"], "a": [`: "line 904: ",
	} {
		_, err := evidence.ParseRegistry(file(line))
		if err == nil || !strings.HasPrefix(err.Error(), "evidence: registry: "+want) {
			t.Errorf("%s:\n%v, want\n%s", line, err, want)
		}
	}
	for line, want := range map[string]string{
		`{"models": {` + "\n" + `"m": {"hwmodel": "X1", "oemid": -1}}}`:                `line 2: models.m.oemid: model "m": oemid is not`,
		`{"models": {` + "\n" + `"m": {` + "\n" + `"oemid": 1}}}`:                      `line 2: models.m.hwmodel: model "m": hwmodel has not`,
		`{"models": {` + "\n\n" + `"m": {"hwmodel": "X1", "ek_certificate": "none"}}}`: `line 3: models.m.ek_certificate: model "m": ek_certificate is "none"`,
		`{"models": {"m": {"hwmodel": "X1", "oemid": 5000000000}}}`:                    "line 1: models.m.oemid",
		`{"blocked": ["` + digest + `",` + "\n" + `"x"]}`:                              "line 2: blocked[1]: blocked: \"x\"",
	} {
		if _, err := evidence.ParseRegistry([]byte(line)); err == nil || !strings.HasPrefix(err.Error(), "evidence: registry: "+want) {
			t.Errorf("%s:\n%v, want\n%s", line, err, want)
		}
	}
}

// TestReferenceLines: what looks right in reference values and does nothing.
func TestReferenceLines(t *testing.T) {
	a, b := fingerprintOf("a"), fingerprintOf("b")
	calling := "3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba" // "Calling EFI Application from Boot Option"
	release := func(members string) string {
		return `{"swname": "os", "swversion": "1", "verdict": "affirming", ` + members + "}"
	}
	file := func(releases ...string) string {
		return `{"policy": "p", "pcrs": [0, 4, 7, 10], "software": [` + "\n" + strings.Join(releases, ",\n") + "]}"
	}
	const never = "is never reached: \"os\" \"1\" on line 2 comes first"
	cases := map[string]struct{ text, want string }{
		"no authorities":                {"{\"policy\": \"p\",\n \"pcrs\": [7],\n \"secure_boot_authorities\": []}", "line 3: secure_boot_authorities: is empty"},
		"an authority of 31 bytes":      {"{\"policy\": \"p\", \"pcrs\": [7], \"secure_boot_authorities\": [\"" + a + "\",\n\"" + b[2:] + "\"]}", "line 2: secure_boot_authorities[1]: "},
		"a PCR out of range":            {"{\"policy\": \"p\",\n \"pcrs\": [16]}", "line 2: pcrs: "},
		"the same twice":                {file(release(`"pcrs": {"0": "`+a+`"}`), release(`"pcrs": {"0": "`+a+`"}`)), "line 3: software[1]: software \"os\" \"1\": " + never},
		"a recall after the release":    {file(release(`"pcrs": {"0": "`+a+`"}`), strings.Replace(release(`"pcrs": {"0": "`+a+`"}`), "affirming", "refused", 1)), "line 3: " + "software[1]: software \"os\" \"1\": " + never},
		"more of the same":              {file(release(`"pcrs": {"0": "`+a+`"}`), release(`"pcrs": {"0": "`+a+`", "4": "`+b+`"}`)), "line 3: software[1]: software \"os\" \"1\": " + never},
		"less of the same":              {file(release(`"pcrs": {"0": "`+a+`", "4": "`+b+`"}`), release(`"pcrs": {"0": "`+a+`"}`)), ""},
		"another value":                 {file(release(`"pcrs": {"0": "`+a+`"}`), release(`"pcrs": {"0": "`+b+`", "4": "`+a+`"}`)), ""},
		"a longer beginning":            {file(release(`"first_events": {"4": ["`+a+`"]}`), release(`"first_events": {"4": ["`+a+`", "`+b+`"]}`)), never},
		"a shorter beginning":           {file(release(`"first_events": {"4": ["`+a+`", "`+b+`"]}`), release(`"first_events": {"4": ["`+a+`"]}`)), ""},
		"another beginning":             {file(release(`"first_events": {"4": ["`+a+`"]}`), release(`"first_events": {"4": ["`+b+`", "`+a+`"]}`)), ""},
		"both kinds":                    {file(release(`"pcrs": {"0": "`+a+`"}, "first_events": {"4": ["`+a+`"]}`), release(`"pcrs": {"0": "`+a+`", "7": "`+b+`"}, "first_events": {"4": ["`+a+`", "`+b+`"]}`)), never},
		"one kind, then both":           {file(release(`"first_events": {"4": ["`+a+`"]}`), release(`"pcrs": {"7": "`+b+`"}, "first_events": {"4": ["`+a+`"]}`)), never},
		"attempts alone":                {file(release(`"first_events": {"4": ["` + calling + `"]}`)), "every device would match"},
		"differs by attempts alone":     {file(release(`"first_events": {"4": ["`+a+`"]}`), release(`"first_events": {"4": ["`+calling+`", "`+a+`"]}`)), never},
		"events that no log has":        {file(release(`"first_events": {"10": ["` + a + `"]}`)), "first_events of PCR 10, which no boot log explains"},
		"the value of such a PCR":       {file(release(`"pcrs": {"10": "` + a + `"}`)), ""},
		"a digest in the third release": {file(release(`"pcrs": {"0": "`+a+`"}`), release(`"pcrs": {"0": "`+b+`"}`), release(`"pcrs": {"0": "x"}`)), "line 4: software[2]: "},
	}
	for name, tc := range cases {
		_, err := evidence.ParseReference([]byte(tc.text))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if len(cases) != 18 {
		t.Errorf("%d cases, want 18", len(cases))
	}
}

// BenchmarkParseReference: 5,000 releases, none of which hides another.
func BenchmarkParseReference(b *testing.B) {
	var releases []string
	for i := range 1500 {
		releases = append(releases, fmt.Sprintf(`{"swname": "os", "swversion": "%d", "verdict": "affirming", "pcrs": {"0": %q, "4": %q}}`, i, fingerprintOf("same"), fingerprintOf(fmt.Sprint(i))))
	}
	text := []byte(`{"policy": "p", "pcrs": [0, 4], "software": [` + strings.Join(releases, ",\n") + "]}")
	for b.Loop() {
		if _, err := evidence.ParseReference(text); err != nil {
			b.Fatal(err)
		}
	}
}

func fingerprintOf(text string) string { return fmt.Sprintf("%x", digestOf([]byte(text))) }
