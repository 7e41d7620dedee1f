// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

// moduleDir is where the go command keeps a module, in the version that go.mod
// names: real boot logs are among the test data of two of them.
func moduleDir(t testing.TB, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if dir := strings.TrimSpace(string(out)); err == nil && dir != "" {
		return dir
	}
	t.Fatalf("the module %s is not there: %v", module, err)
	return ""
}

// fragments are test data of tpm2-tools that are no whole log, and why they prove
// nothing.
var fragments = map[string]string{
	"tpm2-tools-event":              "is not mentioned in PCR 7",
	"tpm2-tools-event-uefiaction":   "is not mentioned in PCR 7",
	"tpm2-tools-event-uefiservices": "is not mentioned in PCR 7",
	"tpm2-tools-event-uefivar":      "PCR 7 has no separator",
	"tpm2-tools-specid-vendordata":  "failed to parse spec ID event",
}

// publicLogs are the boot logs with SHA-256 digests in the test data of
// go-attestation, go-tpm-tools, tpm2-tools and keylime.
func publicLogs(t testing.TB) map[string][]byte {
	t.Helper()
	logs := make(map[string][]byte)
	for _, pattern := range []string{
		filepath.Join(moduleDir(t, "github.com/google/go-attestation"), "attest/testdata/*"),
		filepath.Join(moduleDir(t, "github.com/google/go-tpm-tools"), "internal/test/eventlogs/*.bin"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			log, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, ".json") { // go-attestation's attest.Dump
				var dump struct{ Log struct{ Raw []byte } }
				if err := json.Unmarshal(log, &dump); err != nil {
					t.Fatal(err)
				}
				log = dump.Log.Raw
			}
			if bytes.Contains(log[:min(len(log), 64)], []byte("Spec ID Event03")) {
				logs[filepath.Base(name)] = log
			}
		}
	}
	names, err := filepath.Glob("testdata/boot/*.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		if short := strings.TrimSuffix(base, ".gz"); fragments[short] == "" {
			logs[short] = testdata(t, "boot/"+base)
		}
	}
	return logs
}

// TestFragments: what is no whole log is not taken for one.
func TestFragments(t *testing.T) {
	for name, want := range fragments {
		log := testdata(t, "boot/"+name+".gz")
		var pcrs map[int][]byte
		if _, err := attest.ParseEventLog(log); err == nil {
			pcrs = replayed(t, log)
		}
		if _, err := evidence.SecureBoot(log, pcrs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if len(fragments) != 5 {
		t.Errorf("%d fragments, want 5", len(fragments))
	}
}

// replayed returns the PCRs 0 to 7 that a log adds up to.
func replayed(t testing.TB, log []byte) map[int][]byte {
	t.Helper()
	parsed, err := attest.ParseEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	// The locality that the TPM was started from is where PCR 0 begins.
	pcrs := make(map[int][]byte)
	for i := range 8 {
		pcrs[i] = make([]byte, sha256.Size)
	}
	for _, event := range parsed.Events(attest.HashSHA256) {
		switch {
		case event.Type == 3 && len(event.Data) == 17 && strings.HasPrefix(string(event.Data), "StartupLocality"):
			pcrs[0][sha256.Size-1] = event.Data[16]
		case event.Type == 3 || event.Index > 7:
		default:
			next := sha256.Sum256(append(pcrs[event.Index], event.Digest...))
			pcrs[event.Index] = next[:]
		}
	}
	return pcrs
}

// TestPublicLogs: real firmware's logs replay, and what they say of Secure Boot is
// what go-attestation reads from the whole of them.
func TestPublicLogs(t *testing.T) {
	t.Setenv("GODEBUG", "x509negativeserial=1") // for go-attestation: one of the keys in glinux-alex.bin has such a number
	logs := publicLogs(t)
	enabled := 0
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		log, pcrs := logs[name], replayed(t, logs[name])
		parsed, err := attest.ParseEventLog(log)
		if err != nil {
			t.Fatal(err)
		}
		var values []attest.PCR
		for index, value := range pcrs {
			values = append(values, attest.PCR{Index: index, Digest: value, DigestAlg: crypto.SHA256})
		}
		events, err := parsed.Verify(values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := attest.ParseSecurebootState(events)
		if err != nil && strings.Contains(err.Error(), "SecureBoot data len is 0") { // a machine without keys
			want, err = new(attest.SecurebootState), nil
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var authorities [][]byte
		for _, used := range slices.Concat(want.PreSeparatorAuthority, want.PostSeparatorAuthority) {
			digest := sha256.Sum256(used.Raw)
			authorities = append(authorities, digest[:])
		}
		notes, err := evidence.SecureBoot(log, pcrs, authorities...)
		if want.Enabled != (err == nil) || !want.Enabled && err.Error() != "is off" {
			t.Errorf("%s: %v, and go-attestation says that Secure Boot is on: %t", name, err, want.Enabled)
		}
		if disabled := strings.Contains(strings.Join(notes, ""), "DMA"); disabled != want.DMAProtectionDisabled {
			t.Errorf("%s: notes %q", name, notes)
		}
		if !want.Enabled {
			continue
		}
		enabled++
		for i, missing := range authorities {
			others := slices.DeleteFunc(slices.Clone(authorities), func(d []byte) bool { return bytes.Equal(d, missing) })
			if _, err := evidence.SecureBoot(log, pcrs, others...); err == nil || !strings.Contains(err.Error(), "unknown authority "+hex.EncodeToString(missing)) {
				t.Errorf("%s without its authority %d: %v", name, i, err)
			}
		}
	}
	if len(logs) != 25 || enabled != 11 {
		t.Errorf("%d logs, %d with Secure Boot, want 25 and 11", len(logs), enabled)
	}
}

// TestFirmwareVersion: what real firmware calls itself.
func TestFirmwareVersion(t *testing.T) {
	logs := publicLogs(t)
	for name, want := range map[string]string{
		"ubuntu-2404-amd-sevsnp.bin": "GCE Virtual Firmware v2",
		"arch-linux-workstation.bin": "546bfb1e-1d0c-4055-a4ad-4ef4bf17b83a", // a GUID
		"glinux-alex.bin":            "",
	} {
		if got := evidence.FirmwareVersion(logs[name], replayed(t, logs[name])); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
