// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var reader io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if reader, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func unhex(text string) []byte {
	octets, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return octets
}

func demanding(t testing.TB, members string) *evidence.Reference {
	t.Helper()
	r, err := evidence.ParseReference([]byte(`{"policy": "p", "pcrs": [4, 9, 10, 11, 12, 14, 15], "software": [], ` + members + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// imaLogs are what a kernel 6.12 has measured, under each of its templates, and what
// was in PCR 10 after 24 of the 56 entries. See testdata/README.md.
var imaLogs = map[string]struct {
	forms []string
	pcr10 string
}{
	"ima":      {[]string{"binary", "ascii"}, "607ff7e35a8d697ec673a64ec9b9cd8c364aa16085feb279894d35480d271dc4"},
	"ima-ng":   {[]string{"binary", "ascii", "binary-sha256"}, "c7d75b69018855c5cab75eea1bb063586d0b3f41a995156f2800194567c30a55"},
	"ima-ngv2": {[]string{"binary", "ascii"}, "63fa7f77e7bb7fe95a492464ba490fb9dc6227f0dee088ef049d240d5a64e918"},
	"ima-sig":  {[]string{"binary", "ascii"}, "89abae19d2567e4af313795010a661635cd8e6446e6778a81302a2666e026599"},
}

// TestIMALogs: what a real kernel has measured adds up to what its TPM had in PCR 10
// while it went on, in each form and under each template; nothing else does.
func TestIMALogs(t *testing.T) {
	r := demanding(t, `"ima_log": "required"`)
	logs := 0
	for template, list := range imaLogs {
		for _, form := range list.forms {
			t.Run(template+" "+form, func(t *testing.T) {
				logs++
				log := testdata(t, template+"."+form+".gz")
				value := unhex(list.pcr10)
				n, said, err := evidence.ReplayLater(r, nil, nil, log, map[int][]byte{10: value})
				if err != nil || n != 24 || said[0] != "boot_aggregate" || said[2] != "/bin2/tool_0" {
					t.Fatalf("%d events %q, %v", n, said, err)
				}
				if n, _, err := evidence.ReplayLater(r, nil, nil, log, map[int][]byte{10: evidence.FilledUp(log, 30)}); err != nil || n != 30 {
					t.Errorf("of a kernel that fills SHA-1 up: %d events, %v", n, err)
				}
				other := sha256.Sum256(append(value, make([]byte, 32)...))
				for name, value := range map[string][]byte{"extended by something else": other[:], "nothing": make([]byte, 32)} {
					if n, _, err := evidence.ReplayLater(r, nil, nil, log, map[int][]byte{10: value}); name != "nothing" && err == nil || n != 0 {
						t.Errorf("%s: %d events, %v", name, n, err)
					}
				}
				// Whatever one octet is changed to among those that are covered, something does
				// not fit any more.
				covered := 0
				for i := 0; i < len(log); i += 37 {
					changed := bytes.Clone(log)
					changed[i] ^= 1
					n, _, err := evidence.ReplayLater(r, nil, nil, changed, map[int][]byte{10: value})
					if err != nil {
						covered++
					} else if n != 24 {
						t.Errorf("octet %d: %d events", i, n)
					}
				}
				if covered < len(log)/37/3 {
					t.Errorf("%d of %d changes were noticed", covered, len(log)/37)
				}
			})
		}
	}
	if logs != 9 {
		t.Errorf("%d logs, want 9", logs)
	}
}

// systemdPCRs are what tpm2_pcrread has shown after what is in systemd-257.log.
var systemdPCRs = map[int][]byte{
	9:  unhex("6a35d4fe80702cde1cc60f95f8e51fdde92d6a20f378459844d2fb3b3278213c"),
	11: unhex("38d2047d0545f701a253005037bd1d1662e5f59388885f9e9443f38e2f23531e"),
	15: unhex("2a2e8612c9a1326f5e013fac2f6fba5e158412dd7e7d281cfbf92e4ded01ca9b"),
}

// TestUserspaceLog: what systemd has measured adds up, also after what the firmware has
// measured into the same PCR, and where more was measured since.
func TestUserspaceLog(t *testing.T) {
	r := demanding(t, `"userspace_log": "required"`)
	log := testdata(t, "systemd-257.log")
	n, said, err := evidence.ReplayLater(r, nil, log, nil, systemdPCRs)
	want := []string{
		"systemd phase something", "systemd phase enter-initrd", "systemd phase leave-initrd", "systemd phase sysinit", "systemd phase ready",
		"systemd machine-id machine-id:1786737e7fdb49d4a0caf1df8f320694", "systemd filesystem file-system:/proc::::::",
	}
	if err != nil || n != len(want) || !slices.Equal(said, want) {
		t.Errorf("%d events %q, %v", n, said, err)
	}

	// The image, as the firmware measures it for systemd-stub, then the first two phases.
	image := factory.Event{PCR: 11, Type: 0xd, Data: []byte(".linux")}
	value := make([]byte, 32)
	for _, text := range []string{".linux", "enter-initrd", "leave-initrd"} {
		digest := sha256.Sum256([]byte(text))
		next := sha256.Sum256(append(value, digest[:]...))
		value = next[:]
	}
	firmware := factory.Log([]factory.Event{image})
	n, said, err = evidence.ReplayLater(r, firmware, log, nil, map[int][]byte{11: value, 4: make([]byte, 32)})
	if err != nil || n != 3 || said[0] != ".linux" || said[2] != "systemd phase leave-initrd" {
		t.Errorf("%d events %q, %v", n, said, err)
	}
	if n, _, err := evidence.ReplayLater(r, nil, log, nil, map[int][]byte{11: value}); err == nil || !strings.Contains(err.Error(), "PCR 11, with however many of its 4 events") {
		t.Errorf("without what the firmware has measured: %d events, %v", n, err)
	}

	// All that the firmware has measured is there, and its own PCRs are its own.
	two := factory.Log([]factory.Event{image, {PCR: 11, Type: 0xd, Data: []byte(".osrel")}})
	linux := sha256.Sum256([]byte(".linux"))
	half := sha256.Sum256(append(make([]byte, 32), linux[:]...))
	if n, _, err := evidence.ReplayLater(r, two, log, nil, map[int][]byte{11: half[:]}); err == nil {
		t.Errorf("half of what the firmware has measured: %d events", n)
	}
	of4 := bytes.ReplaceAll(log, []byte(`"pcr":11`), []byte(`"pcr":4`))
	if n, _, err := evidence.ReplayLater(r, nil, of4, nil, map[int][]byte{4: systemdPCRs[11]}); n != 0 || err != nil {
		t.Errorf("PCR 4: %d events, %v", n, err)
	}

	for name, pcrs := range map[string]map[int][]byte{
		"PCR 12 that nothing explains": {12: value},
		"PCR 9 of another boot":        {9: value},
		"PCR 15 without a measurement": {15: unhex(strings.Repeat("ff", 32))},
	} {
		if _, _, err := evidence.ReplayLater(r, nil, log, nil, pcrs); err == nil || !strings.Contains(err.Error(), "do not add up") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What no log is for is judged by its value alone.
	if n, _, err := evidence.ReplayLater(r, nil, log, nil, map[int][]byte{14: value, 10: value}); err != nil || n != 0 {
		t.Errorf("PCRs 10 and 14: %d events, %v", n, err)
	}
}

// TestDamagedLaterLogs: what is no log is refused, and says where.
func TestDamagedLaterLogs(t *testing.T) {
	record := func(rest string) string { return "\x1e{" + rest + "}\n" }
	digest := strings.Repeat("ab", 32)
	good := record(`"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": "` + digest + `"}]`)
	for name, tt := range map[string]struct{ userspace, want string }{
		"no sequence":       {`{"pcr": 11}`, "no JSON text sequence"},
		"text before":       {"x" + good, "no JSON text sequence"},
		"no JSON":           {good + "\x1ex", "record 1:"},
		"cut off":           {good[:len(good)-8], "record 0:"},
		"a member twice":    {record(`"pcr": 11, "pcr": 12`), "record 0:"},
		"two texts in one":  {strings.TrimSpace(good) + "{}", "record 0:"},
		"no SHA-256 digest": {record(`"pcr": 11, "digests": [{"hashAlg": "sha1", "digest": "00"}]`), "record 0: has no SHA-256 digest"},
		"two of them":       {strings.Replace(good, "[", `[{"hashAlg": "sha256", "digest": "`+digest+`"},`, 1), "not one SHA-256"},
		"a short one":       {strings.Replace(good, "abab", "ab", 1), "not one SHA-256"},
		"not hexadecimal":   {strings.Replace(good, "abab", "zzzz", 1), "not one SHA-256"},
		"PCR as text":       {record(`"pcr": "11"`), "record 0:"},
		"too large":         {strings.Repeat(good, 10_000), "more than"},
	} {
		t.Run("userspace "+name, func(t *testing.T) {
			_, _, err := evidence.ReplayLater(demanding(t, `"userspace_log": "required"`), nil, []byte(tt.userspace), nil, nil)
			wantCode(t, err, evidence.CodeInvalidEvidence, tt.want)
		})
	}
	// systemd has records of NV indexes, which are in no PCR.
	nv := good + record(`"nvIndex": 1, "digests": []`)
	value := sha256.Sum256(append(make([]byte, 32), unhex(digest)...))
	if n, _, err := evidence.ReplayLater(demanding(t, `"userspace_log": "required"`), nil, []byte(nv), nil, map[int][]byte{11: value[:]}); n != 1 || err != nil {
		t.Errorf("beside an NV index: %d events, %v", n, err)
	}

	binary, text := testdata(t, "ima-ng.binary.gz"), testdata(t, "ima-ng.ascii.gz")
	line := func(s string) []byte { return []byte("10 " + strings.Repeat("ab", 20) + " " + s + "\n") }
	for name, tt := range map[string]struct {
		ima  []byte
		want string
	}{
		"cut off":             {binary[:len(binary)-1], "entry 55 is cut off"},
		"a digest of another": {bytes.Replace(binary, []byte("/bin2/tool_1"), []byte("/bin2/tool_x"), 1), "entry 5: is not what its digest says"},
		"a size of 4 GB":      {append(bytes.Clone(binary[:24]), 0xff, 0xff, 0xff, 0xff), "entry 0 is cut off"},
		"text cut off":        {text[:len(text)-60], "entry 51:"},
		"text of another":     {bytes.Replace(text, []byte("/bin2/tool_1"), []byte("/bin2/tool_x"), 1), "entry 5: is not what its digest says"},
		"few fields":          {line("ima-ng sha256:00"), "entry 0: has too few fields"},
		"another template":    {line("evm-sig sha256:00 /x y"), "send the binary list"},
		"no hexadecimal":      {line("ima-ng sha256:xx /x"), "not in hexadecimal"},
		"no PCR":              {append([]byte("1x"), line("ima-ng sha256:00 /x")...), "PCR"},
		"too large":           {bytes.Repeat(binary, 80), "more than"},
	} {
		t.Run("IMA "+name, func(t *testing.T) {
			_, _, err := evidence.ReplayLater(demanding(t, `"ima_log": "required"`), nil, nil, tt.ima, nil)
			wantCode(t, err, evidence.CodeInvalidEvidence, tt.want)
		})
	}
}

func wantCode(t *testing.T, err error, code, text string) {
	t.Helper()
	var refused *evidence.Error
	if !errors.As(err, &refused) || refused.Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %s: %s", err, code, text)
	}
}

// TestLaterLogsDemanded: only what the operator demands is read.
func TestLaterLogsDemanded(t *testing.T) {
	for members, want := range map[string][]string{
		`"userspace_log": "ignored"`:                            nil,
		`"ima_log": "ignored"`:                                  nil,
		`"userspace_log": "required"`:                           {"canonicalEventLog"},
		`"ima_log": "required"`:                                 {"imaLog"},
		`"userspace_log": "required", "ima_log": "required"`:    {"canonicalEventLog", "imaLog"},
		`"userspace_log": "ignored", "ima_log": "required"`:     {"imaLog"},
		`"attest_unknown_software": true, "ima_log": "ignored"`: nil,
	} {
		sent := map[string][]byte{"canonicalEventLog": testdata(t, "systemd-257.log"), "imaLog": testdata(t, "ima-ng.binary.gz")}
		for _, name := range slices.Sorted(maps.Keys(sent)) {
			missing := maps.Clone(sent)
			delete(missing, name)
			err := evidence.DemandLogs(demanding(t, members), missing["canonicalEventLog"], missing["imaLog"])
			if !slices.Contains(want, name) {
				if err != nil {
					t.Errorf("%s without %s: %v", members, name, err)
				}
				continue
			}
			wantCode(t, err, evidence.CodePlatformEvidenceRequired, "no "+name)
		}
	}
}

// FuzzLaterLogs: no log of whatever content makes the verifier fall.
func FuzzLaterLogs(f *testing.F) {
	f.Add(testdata(f, "systemd-257.log"), []byte{10, 0, 0, 0})
	f.Add([]byte("\x1e{}"), []byte("10 00 ima-ng sha256:00 /x"))
	for template, list := range imaLogs {
		for _, form := range list.forms {
			f.Add([]byte(nil), testdata(f, template+"."+form+".gz"))
		}
	}
	r := demanding(f, `"userspace_log": "required", "ima_log": "required"`)
	f.Fuzz(func(t *testing.T, userspace, ima []byte) {
		n, said, err := evidence.ReplayLater(r, nil, userspace, ima, map[int][]byte{10: make([]byte, 32), 11: make([]byte, 32)})
		if err == nil && (n != 0 || len(said) != 0) {
			t.Errorf("%d events make a PCR that nothing was measured into", n)
		}
	})
}
