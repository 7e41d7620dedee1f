// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// FuzzStatus: whatever a TPM answers, nothing panics, every error has a
// sentinel, and what goes to a terminal can be printed.
func FuzzStatus(f *testing.F) {
	sim := tpmtest.Simulator(f)
	recorder := tpmtest.Record(sim)
	conn, err := recorder.Dial(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	askStatus(f, conn)
	var joined []byte
	for _, e := range recorder.Exchanges() {
		joined = append(joined, e.Response...)
	}
	f.Add(joined)
	f.Fuzz(func(t *testing.T, input []byte) { askStatus(t, &answers{notBusy(split(input))}) })
}

// notBusy leaves out busy answers, which make a Store wait.
func notBusy(frames [][]byte) [][]byte {
	return slices.DeleteFunc(frames, func(frame []byte) bool {
		return len(frame) >= 10 && slices.Contains([]uint32{0x922, 0x908, 0x90A, 0x920}, binary.BigEndian.Uint32(frame[6:]))
	})
}

func askStatus(t testing.TB, connection transport.TPM) {
	s, err := tpm.Open(context.Background(), tpm.Config{TPM: connection, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Status(context.Background())
	if err != nil {
		hasSentinel(t, err)
		return
	}
	for _, text := range []string{got.Manufacturer, got.Model, got.Specification, got.Firmware} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q cannot be printed", text)
		}
	}
	if srk := got.StorageRootKey; srk.Err != nil {
		hasSentinel(t, srk.Err)
	} else if len(srk.Name) == 0 {
		t.Error("a storage root key without a Name")
	}
	if got.Clock.Running < 0 {
		t.Errorf("on for %v", got.Clock.Running)
	}
}
