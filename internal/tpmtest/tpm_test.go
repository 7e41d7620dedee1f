// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

const persistent = 0x81000042

// device is what the two kinds of TPM have in common.
type device interface {
	tpmtest.Device
	Manufacture()
}

func TestTPMs(t *testing.T) {
	tests := []struct {
		name    string
		start   func(t *testing.T) device
		restart func(device)
	}{
		{"Simulator", func(t *testing.T) device { return tpmtest.Simulator(t) }, func(d device) { d.(*tpmtest.Sim).Reset() }},
		{"SWTPM unix", func(t *testing.T) device { return tpmtest.SWTPM(t, tpmtest.SWConfig{}) }, func(d device) { d.(*tpmtest.SW).Restart() }},
		{"SWTPM tcp", func(t *testing.T) device { return tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: true}) }, func(d device) { d.(*tpmtest.SW).Restart() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := tt.start(t)
			dial := func() transport.TPMCloser {
				conn, err := dev.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}

			tpm := dial()
			before := create(t, tpm)
			persist(t, tpm, before, persistent)
			left := create(t, tpm)
			if err := tpm.Close(); err != nil {
				t.Fatal(err)
			}
			if err := random(tpm); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed connection: %v", err)
			}

			tpm = dial()
			if err := signKey(tpm, left); err != nil {
				t.Errorf("a key loaded over an earlier connection: %v", err)
			}
			tpm.Close()

			tt.restart(dev)
			tpm = dial()
			tpmtest.NoLeaks(t, tpm)
			if err := sign(tpm, persistent, before.Name, tpm2.PasswordAuth(nil)); err != nil {
				t.Errorf("persistent key after a reboot: %v", err)
			}
			if again := create(t, tpm); !samePublic(before, again) {
				t.Error("other seeds after a reboot")
			}
			tpm.Close()

			dev.Manufacture()
			tpm = dial()
			defer tpm.Close()
			tpmtest.NoLeaks(t, tpm)
			if handles := tpmtest.Handles(t, tpm, tpm2.TPMHTPersistent); len(handles) != 0 {
				t.Errorf("persistent handles %#x in a new TPM", handles)
			}
			if other := create(t, tpm); samePublic(before, other) {
				t.Error("same seeds in another TPM")
			}
		})
	}
}

// A second simulator in one test would wait for the first for ever.
func TestSimulatorTwice(t *testing.T) {
	tpmtest.Simulator(t)
	fake := &fakeTB{TB: t}
	done := make(chan bool)
	go func() {
		defer close(done)
		tpmtest.Simulator(fake)
	}()
	<-done
	if fake.fatals != 1 {
		t.Errorf("%d failures", fake.fatals)
	}
}

func TestNotStarted(t *testing.T) {
	tests := []struct {
		name  string
		start func(t *testing.T) tpmtest.Device
	}{
		{"Simulator", func(t *testing.T) tpmtest.Device {
			sim := tpmtest.Simulator(t)
			sim.PowerOff()
			return sim
		}},
		{"SWTPM", func(t *testing.T) tpmtest.Device { return tpmtest.SWTPM(t, tpmtest.SWConfig{NotStarted: true}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tpm := tpmtest.Dial(t, tt.start(t))
			if err := random(tpm); !errors.Is(err, tpm2.TPMRCInitialize) {
				t.Fatalf("before TPM2_Startup: %v", err)
			}
			if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUState}).Execute(tpm); !errors.Is(err, tpm2.TPMRCValue) {
				t.Errorf("TPM2_Startup(STATE) without a state: %v", err)
			}
			if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(tpm); err != nil {
				t.Fatal(err)
			}
			if err := random(tpm); err != nil {
				t.Errorf("after TPM2_Startup: %v", err)
			}
			if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(tpm); !errors.Is(err, tpm2.TPMRCInitialize) {
				t.Errorf("second TPM2_Startup: %v", err)
			}
		})
	}
}

func TestSWTPMStop(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
	tpm := tpmtest.Dial(t, sw)
	sw.Stop()
	if err := random(tpm); err == nil {
		t.Error("a dead TPM answered")
	}
	if _, err := sw.Dial(context.Background()); err == nil {
		t.Error("dialled a dead TPM")
	}
	sw.Restart()
	if err := random(tpmtest.Dial(t, sw)); err != nil {
		t.Error(err)
	}
}

func TestNoLeaks(t *testing.T) {
	tpm := tpmtest.Dial(t, tpmtest.Simulator(t))
	tpmtest.NoLeaks(t, tpm)

	key := create(t, tpm)
	session, err := tpm2.StartAuthSession{
		TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull,
		NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)},
		SessionType: tpm2.TPMSEHMAC,
		Symmetric:   tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		AuthHash:    tpm2.TPMAlgSHA256,
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(n int) {
		t.Helper()
		fake := &fakeTB{TB: t}
		tpmtest.NoLeaks(fake, tpm)
		if fake.errors != n {
			t.Errorf("%d failures, want %d", fake.errors, n)
		}
	}
	expect(2) // object, loaded session
	if _, err := (tpm2.ContextSave{SaveHandle: tpm2.TPMIDHContext(session.SessionHandle)}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	expect(2) // object, saved session
	flush(t, tpm, key.ObjectHandle)
	expect(1)
	flush(t, tpm, tpm2.TPMHandle(session.SessionHandle))
	expect(0)
}

func TestExtendPCR(t *testing.T) {
	tpm := tpmtest.Dial(t, tpmtest.Simulator(t))
	read := func() (values []string) {
		for _, bank := range []tpm2.TPMAlgID{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256} {
			rsp, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
				{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(7)},
			}}}.Execute(tpm)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(rsp.PCRValues.Digests[0].Buffer))
		}
		return values
	}
	before := read()
	tpmtest.ExtendPCR(t, tpm, 7, "another firmware")
	for i, after := range read() {
		if after == before[i] {
			t.Errorf("bank %d is as it was", i)
		}
	}
}

// TestPrimaryAgain: a primary key that was made before is the same key and signs, but has a place of its own. What changes
// its hierarchy is seen, although the command is the same.
func TestPrimaryAgain(t *testing.T) {
	sim := tpmtest.Simulator(t)
	first := create(t, sim)
	same := func(when string, key *tpm2.CreatePrimaryResponse) {
		t.Helper()
		if !bytes.Equal(key.Name.Buffer, first.Name.Buffer) {
			t.Errorf("%s: another key", when)
		}
		if err := signKey(sim, key); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused := func(when string, want tpm2.TPMRC) {
		t.Helper()
		if _, err := tryCreate(sim); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", when, err, want)
		}
	}
	second, third := create(t, sim), create(t, sim)
	if second.ObjectHandle == first.ObjectHandle || third.ObjectHandle == second.ObjectHandle {
		t.Error("two keys have one handle")
	}
	refused("no place is left", tpm2.TPMRCObjectMemory)
	for _, key := range []*tpm2.CreatePrimaryResponse{first, second, third} {
		same("all loaded", key)
		if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(sim); err != nil {
			t.Fatal(err)
		}
	}

	same("once more", create(t, sim))
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "secret")
	refused("the owner has a password", tpm2.TPMRCBadAuth)
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "secret", "")
	same("the owner has none again", create(t, sim))
	sim.Reset()
	same("after a reset", create(t, sim))

	if _, err := (tpm2.Clear{AuthHandle: tpm2.TPMRHLockout}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	if key := create(t, sim); bytes.Equal(key.Name.Buffer, first.Name.Buffer) {
		t.Error("the key of before TPM2_Clear was made")
	}
}
