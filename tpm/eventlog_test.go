// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// bootEvent is something that firmware measures: the hash of data goes into a
// PCR and into the log.
type bootEvent struct {
	pcr  int
	kind uint32
	data string
}

var bootEvents = []bootEvent{
	{0, 0x8, "v\x001\x00\x00\x00"}, // EV_S_CRTM_VERSION
	{0, 0x4, "\x00\x00\x00\x00"},   // EV_SEPARATOR
	{4, 0x4, "\x00\x00\x00\x00"},   // EV_SEPARATOR
	{4, 0x80000007, "boot loader"}, // EV_EFI_ACTION
	{7, 0x4, "\x00\x00\x00\x00"},   // EV_SEPARATOR
}

// encodeLog writes a log as firmware does, of the SHA-256 bank alone (TCG PC
// Client Platform Firmware Profile, "Event Logging").
func encodeLog(events []bootEvent) []byte {
	order := binary.LittleEndian
	specID := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	specID = order.AppendUint32(specID, 1)
	specID = order.AppendUint16(specID, uint16(tpm2.TPMAlgSHA256))
	specID = append(order.AppendUint16(specID, sha256.Size), 0)
	log := order.AppendUint32(nil, 0)
	log = order.AppendUint32(log, 0x3) // EV_NO_ACTION
	log = append(log, make([]byte, 20)...)
	log = append(order.AppendUint32(log, uint32(len(specID))), specID...)
	for _, e := range events {
		digest := sha256.Sum256([]byte(e.data))
		log = order.AppendUint32(log, uint32(e.pcr))
		log = order.AppendUint32(log, e.kind)
		log = order.AppendUint32(log, 1)
		log = append(order.AppendUint16(log, uint16(tpm2.TPMAlgSHA256)), digest[:]...)
		log = append(order.AppendUint32(log, uint32(len(e.data))), e.data...)
	}
	return log
}

func withLog(log func(context.Context) ([]byte, error)) func(*tpm.Config) {
	return func(c *tpm.Config) { c.EventLog = log }
}

// TestEventLog: the log explains the PCRs that were quoted, and no longer does
// after something else was measured.
func TestEventLog(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, e := range bootEvents {
		tpmtest.ExtendPCR(t, sim, e.pcr, e.data)
	}
	log := encodeLog(bootEvents)
	read := 0
	r := newRig(t, sim, withLog(func(context.Context) ([]byte, error) {
		read++
		return bytes.Clone(log), nil
	}))
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	pcrs := []int{0, 1, 2, 3, 4, 5, 6, 7}
	evidence := prove(t, key, pcrs...)
	if !bytes.Equal(evidence.EventLog, log) || read != 1 {
		t.Fatalf("log %x, read %d times", evidence.EventLog, read)
	}
	if err := replay(t, evidence); err != nil {
		t.Errorf("replay: %v", err)
	}
	tpmtest.ExtendPCR(t, sim, 4, "another boot loader")
	if err := replay(t, prove(t, key, pcrs...)); err == nil {
		t.Error("the log explains what is not in it")
	}
	if evidence := prove(t, key); evidence.EventLog != nil || evidence.Quote != nil || read != 2 {
		t.Errorf("a log that nobody asked for: %x, read %d times", evidence.EventLog, read)
	}
}

// replay verifies the quote and then the log against its PCRs.
func replay(t *testing.T, evidence keystore.Evidence) error {
	t.Helper()
	log, err := attest.ParseEventLog(evidence.EventLog)
	if err != nil {
		t.Fatal(err)
	}
	var values []attest.PCR
	for pcr, value := range evidence.Quote.PCRs {
		values = append(values, attest.PCR{Index: pcr, Digest: value, DigestAlg: crypto.SHA256})
	}
	events, err := log.Verify(values)
	if err == nil && len(events) != len(bootEvents) {
		t.Errorf("%d events, want %d", len(events), len(bootEvents))
	}
	return err
}

// TestNoEventLog: the host's log is never sent by itself.
func TestNoEventLog(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	if evidence := prove(t, create(t, r.Store, "key", tpm.KeyOptions{}), 0, 7); evidence.EventLog != nil {
		t.Errorf("log %x", evidence.EventLog)
	}
}

// TestEventLogFails: nothing is sent then.
func TestEventLogFails(t *testing.T) {
	cause := errors.New("cause")
	ctx, cancel := context.WithCancel(t.Context())
	sim := tpmtest.Simulator(t)
	for name, tt := range map[string]struct {
		log  func(context.Context) ([]byte, error)
		want []error
	}{
		"error":     {func(context.Context) ([]byte, error) { return nil, cause }, []error{keystore.ErrUnavailable, cause}},
		"too large": {func(context.Context) ([]byte, error) { return make([]byte, 1<<20+1), nil }, []error{keystore.ErrUnavailable}},
		"cancelled": {func(ctx context.Context) ([]byte, error) {
			cancel()
			<-ctx.Done()
			return nil, cause
		}, []error{context.Canceled}},
	} {
		r := newRig(t, sim, withLog(tt.log))
		key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
		r.calls.Reset()
		ctx := ctx
		if name != "cancelled" {
			ctx = t.Context()
		}
		_, err := key.Evidence(ctx, keystore.EvidenceRequest{Binding: binding, PCRs: []int{7}})
		wantError(t, err, tt.want...)
		if n := r.calls.Count(); n != 0 {
			t.Errorf("%s: %d commands were sent", name, n)
		}
		r.Close()
	}
	r := newRig(t, sim, withLog(func(context.Context) ([]byte, error) { return make([]byte, 1<<20), nil }))
	if evidence := prove(t, create(t, r.Store, "key", tpm.KeyOptions{}), 7); len(evidence.EventLog) != 1<<20 {
		t.Errorf("a log of %d bytes", len(evidence.EventLog))
	}
}

// TestReadEventLog: of files like the kernel's.
func TestReadEventLog(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	log := encodeLog(bootEvents)
	if got, err := tpm.ReadEventLog(t.Context(), write("log", log)); err != nil || !bytes.Equal(got, log) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := tpm.ReadEventLog(t.Context(), write("large", make([]byte, 1<<20+1))); err == nil {
		t.Error("a log of more than 1 MiB was read")
	}
	if _, err := tpm.ReadEventLog(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := tpm.ReadEventLog(t.Context(), "/dev/zero"); err == nil {
		t.Error("/dev/zero was read to its end")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tpm.LinuxEventLog(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
