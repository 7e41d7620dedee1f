// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/tpm"
)

// TestSocketAsDevice: a socket whose "unix:" was left out is no TPM that is missing.
func TestSocketAsDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chip")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	store, err := tpm.Open(t.Context(), tpm.Config{Device: path, Dir: t.TempDir()})
	if err == nil {
		store.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "a socket is written unix:PATH") || strings.Contains(err.Error(), "firmware") {
		t.Errorf("error %v", err)
	}
}
