// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

func TestRecorder(t *testing.T) {
	rec := tpmtest.Record(tpmtest.Simulator(t))
	conn, err := rec.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if dialled, open := rec.Dials(); dialled != 1 || open != 1 {
		t.Errorf("%d dialled, %d open", dialled, open)
	}

	key := create(t, conn)
	if err := signKey(conn, key); err != nil {
		t.Fatal(err)
	}
	flush(t, conn, key.ObjectHandle)
	if err := signKey(conn, key); !errors.Is(err, tpm2.TPMRCReferenceH0) {
		t.Fatalf("flushed key: %v", err)
	}

	rec.Want(t, tpm2.TPMCCCreatePrimary, tpm2.TPMCCSign, tpm2.TPMCCFlushContext, tpm2.TPMCCSign)
	fake := &fakeTB{TB: t}
	rec.Want(fake, tpm2.TPMCCSign)
	if fake.errors != 1 {
		t.Error("Want did not fail for other commands")
	}
	if all, signs := rec.Count(), rec.Count(tpm2.TPMCCSign); all != 4 || signs != 2 {
		t.Errorf("%d commands, %d of them Sign", all, signs)
	}
	var codes []tpm2.TPMRC
	for _, e := range rec.Exchanges() {
		codes = append(codes, e.RC())
	}
	if want := []tpm2.TPMRC{0, 0, 0, tpm2.TPMRCReferenceH0}; !slices.Equal(codes, want) {
		t.Errorf("response codes %v, want %v", codes, want)
	}
	if rec.MaxInFlight() != 1 {
		t.Errorf("%d commands in flight", rec.MaxInFlight())
	}

	rec.Reset()
	if rec.Count() != 0 || rec.Saw([]byte{0x80}) {
		t.Error("still there after Reset")
	}
	conn.Close()
	if conn.Close() == nil {
		t.Error("closed twice without an error")
	}
	if dialled, open := rec.Dials(); dialled != 0 || open != 0 {
		t.Errorf("after Reset and Close: %d dialled, %d open", dialled, open)
	}
}

// A device may work in the caller's slice, as the simulator package does.
func TestRecorderKeepsWhatWasSent(t *testing.T) {
	sent := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x7B}
	cmd := bytes.Clone(sent)
	rec := tpmtest.Record(stalling(func() { clear(cmd) }))
	tpmtest.Dial(t, rec).Send(cmd)
	if got := rec.Exchanges()[0].Command; !bytes.Equal(got, sent) {
		t.Errorf("recorded %x, sent %x", got, sent)
	}
}

// The simulator package decrypts a command's first parameter in the caller's slice: clear text that never was on the wire.
func TestSimulatorLeavesCommands(t *testing.T) {
	tpm := tpmtest.Dial(t, keepsCommands{t, tpmtest.Simulator(t)})
	key := create(t, tpm)
	if err := signWith(tpm, key, make([]byte, 32), tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptIn))); err != nil {
		t.Fatal(err)
	}
}

// keepsCommands fails the test if a command's bytes change on the way.
type keepsCommands struct {
	t *testing.T
	tpmtest.Device
}

func (k keepsCommands) Dial(ctx context.Context) (transport.TPMCloser, error) {
	conn, err := k.Device.Dial(ctx)
	return keepingConn{k.t, conn}, err
}

type keepingConn struct {
	t *testing.T
	transport.TPMCloser
}

func (k keepingConn) Send(cmd []byte) ([]byte, error) {
	before := bytes.Clone(cmd)
	rsp, err := k.TPMCloser.Send(cmd)
	if !bytes.Equal(cmd, before) {
		k.t.Errorf("sent %x, now it is %x", before, cmd)
	}
	return rsp, err
}

func TestRecorderSaw(t *testing.T) {
	rec := tpmtest.Record(tpmtest.Simulator(t))
	tpm := tpmtest.Dial(t, rec)
	key := create(t, tpm)

	digest := bytes.Repeat([]byte{0xA5}, 32)
	if err := signWith(tpm, key, digest, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptIn))); err != nil {
		t.Fatal(err)
	}
	if rec.Saw(digest) {
		t.Error("saw a parameter that was sent encrypted")
	}
	if err := signWith(tpm, key, digest); err != nil {
		t.Fatal(err)
	}
	if !rec.Saw(digest) {
		t.Error("did not see a parameter that was sent in the clear")
	}
}

func TestRecorderMaxInFlight(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	rec := tpmtest.Record(stalling(func() {
		arrived <- true
		<-release
	}))
	conn := tpmtest.Dial(t, rec)
	done := make(chan error)
	for range 2 {
		go func() {
			_, err := conn.Send(make([]byte, 10))
			done <- err
		}()
	}
	<-arrived
	<-arrived
	close(release)
	<-done
	<-done
	if rec.MaxInFlight() != 2 || rec.Count() != 2 {
		t.Errorf("%d in flight, %d commands", rec.MaxInFlight(), rec.Count())
	}
}

// stalling is a Device whose commands run a function and fail.
type stalling func()

func (s stalling) Dial(context.Context) (transport.TPMCloser, error) { return s, nil }
func (stalling) Close() error                                        { return nil }
func (s stalling) Send([]byte) ([]byte, error) {
	s()
	return nil, errors.New("no TPM")
}
