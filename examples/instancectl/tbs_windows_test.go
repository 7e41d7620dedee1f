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
