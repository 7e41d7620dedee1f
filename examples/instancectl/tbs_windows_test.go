// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTBS: a technician's first commands on Windows, in the order of a day.
func TestTBS(t *testing.T) {
	if os.Getenv("TPM_TBS") == "" {
		t.Skip("TPM_TBS is not set: this machine's TPM is not for tests")
	}
	keys := filepath.Join(t.TempDir(), "keys")
	on := func(command string, args ...string) []string {
		return append(append(strings.Fields(command), "-store", "tbs", "-keys", keys), args...)
	}
	if r := instancectl(t, on("doctor")...); !strings.Contains(r.stdout, "TPM") || strings.Contains(r.stdout, "device  fail") {
		t.Errorf("doctor: status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	for _, name := range []string{"kiosk", "Kiosk", "nul"} {
		ok(t, on("key create", "-name", name)...)
	}
	if r := ok(t, on("key list")...); strings.Count(r.stdout, "iosk") != 2 || !strings.Contains(r.stdout, "nul") {
		t.Errorf("list: %s", r.stdout)
	}
	var shown map[string]any
	if r := ok(t, on("key show", "-name", "Kiosk")...); json.Unmarshal([]byte(r.stdout), &shown) != nil {
		t.Errorf("show: %s", r.stdout)
	}
	for _, name := range []string{"kiosk", "Kiosk", "nul"} {
		ok(t, on("key delete", "-name", name)...)
	}
	if r := ok(t, on("key list")...); strings.Contains(r.stdout, "iosk") {
		t.Errorf("list: %s", r.stdout)
	}
}

// TestTBSRefused: what Windows says when the TPM is opened has advice for Windows.
func TestTBSRefused(t *testing.T) {
	if os.Getenv("TPM_TBS") == "" {
		t.Skip("TPM_TBS is not set: this machine's TPM is not for tests")
	}
	for code, words := range map[string][]string{
		"80284008": {"TBS_E_SERVICE_NOT_RUNNING", "sc.exe start tbs"},
		"80284010": {"TBS_E_SERVICE_DISABLED", "sc.exe config tbs"},
		"8028400f": {"TBS_E_TPM_NOT_FOUND", "firmware setup"},
		"80284012": {"TBS_E_ACCESS_DENIED", "run as administrator"},
		"80284009": {"TBS_E_TOO_MANY_TBS_CONTEXTS", "too many programs"},
		"80280001": {"TBS return code 0x80280001"},
	} {
		t.Setenv("TBS_RESULT", code)
		keys := filepath.Join(t.TempDir(), "keys")
		for _, args := range [][]string{{"doctor"}, {"key", "create", "-name", "k"}} {
			r := instancectl(t, append(args, "-store", "tbs", "-keys", keys)...)
			if r.status != 1 {
				t.Errorf("%s with %s: status %d", args[0], code, r.status)
			}
			for _, word := range words {
				if !strings.Contains(r.stdout+r.stderr, word) {
					t.Errorf("%s with %s does not say %q: %s%s", args[0], code, word, r.stdout, r.stderr)
				}
			}
			for _, word := range []string{"dmesg", "usermod", "/dev/tpm"} {
				if strings.Contains(r.stdout+r.stderr, word) {
					t.Errorf("%s with %s has advice for Linux: %s%s", args[0], code, r.stdout, r.stderr)
				}
			}
		}
	}
}
