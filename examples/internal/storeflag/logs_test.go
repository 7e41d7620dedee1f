// SPDX-License-Identifier: Apache-2.0

package storeflag_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// TestLogs: what is in the files goes into evidence, each to its place, and a file that is
// not there is told before anything is opened.
func TestLogs(t *testing.T) {
	exampletest.NeedSimulator(t)
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	logs := storeflag.LogFlags{EventLog: file("firmware"), UserspaceLog: file("systemd"), IMALog: file("ima")}
	flags := storeflag.Flags{Store: "simulator", LogFlags: logs}
	store, err := flags.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := store.Create(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	collected, err := key.(keystore.AttestableKey).Evidence(t.Context(), keystore.EvidenceRequest{Binding: make([]byte, sha256.Size), PCRs: []int{0}})
	if err != nil || !bytes.Equal(collected.EventLog, []byte("firmware")) || !bytes.Equal(collected.UserspaceLog, []byte("systemd")) || !bytes.Equal(collected.IMALog, []byte("ima")) {
		t.Errorf("logs %q, %q, %q: %v", collected.EventLog, collected.UserspaceLog, collected.IMALog, err)
	}
	for flag, wrong := range map[string]storeflag.LogFlags{
		"-event-log":     {EventLog: filepath.Join(dir, "none")},
		"-userspace-log": {UserspaceLog: filepath.Join(dir, "none")},
		"-ima-log":       {IMALog: filepath.Join(dir, "none")},
	} {
		flags := storeflag.Flags{Store: "simulator", LogFlags: wrong}
		if err := flags.Check(); err == nil || !strings.Contains(err.Error(), flag+": ") {
			t.Errorf("%s: got %v", flag, err)
		}
		flags.Store = "soft"
		if err := flags.Check(); err == nil || !strings.Contains(err.Error(), "need a TPM") {
			t.Errorf("%s for a key in software: got %v", flag, err)
		}
	}
}
