// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

func TestResourceManagerReset(t *testing.T) {
	for _, tt := range []struct {
		name string
		old  bool
		want error
	}{
		{"now", false, syscall.EINVAL},
		{"before Linux 6.10", true, syscall.EFAULT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rm, chip, sim := managed(t)
			rm.BeforeLinux610 = tt.old
			object, session, empty := openFile(t, rm), openFile(t, rm), openFile(t, rm)
			create(t, object)
			key := create(t, empty)
			persist(t, empty, key, persistent)
			auth, _, err := newSession(session)
			if err != nil {
				t.Fatal(err)
			}

			sim.Reset()
			for range 2 {
				if err := random(object); !errors.Is(err, tt.want) {
					t.Errorf("file with an object: %v, want %v", err, tt.want)
				}
			}
			if err := sign(session, persistent, key.Name, auth); err == nil {
				t.Error("a session survived the reset")
			}
			if err := random(empty); err != nil {
				t.Errorf("file with nothing: %v", err)
			}
			for _, f := range []transport.TPMCloser{object, session, empty} {
				f.Close()
			}
			if err := random(openFile(t, rm)); err != nil {
				t.Errorf("new file: %v", err)
			}
			tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
		})
	}
}

func TestResourceManagerRefuses(t *testing.T) {
	rm, chip, _ := managed(t)
	file := openFile(t, rm)
	defer file.Close()
	tests := []struct {
		name string
		cmd  []byte
		want error
	}{
		{"no header", make([]byte, 9), syscall.EINVAL},
		{"no handle", []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x65}, syscall.EINVAL},
		{"unknown object", []byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0xFF, 0xFF, 0xFF}, syscall.EINVAL},
		{"real handle", []byte{0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 0}, syscall.EINVAL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := file.Send(tt.cmd); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	rsp, err := file.Send([]byte{0x80, 1, 0, 0, 0, 10, 0x20, 0, 0x12, 0x34})
	if want := "\x80\x01\x00\x00\x00\x0a\x00\x0b\x01\x43"; err != nil || string(rsp) != want {
		t.Errorf("unknown command: %x, %v", rsp, err)
	}
	if chip.Count() != 0 {
		t.Errorf("the chip saw %s", tpmtest.Names(chip.Codes()))
	}
}

func TestResourceManagerRetries(t *testing.T) {
	faults := tpmtest.Inject(t, tpmtest.Simulator(t))
	chip := tpmtest.Record(faults)
	rm := tpmtest.NewResourceManager(t, chip)
	file := openFile(t, rm)
	defer file.Close()

	for _, tt := range []struct {
		times int
		want  error
	}{{7, nil}, {8, tpm2.TPMRCRetry}} {
		chip.Reset()
		faults.Add(tpmtest.Fault{Command: tpm2.TPMCCGetRandom, Times: tt.times, RC: tpm2.TPMRCRetry})
		if err := random(file); !errors.Is(err, tt.want) {
			t.Errorf("busy %d times: %v", tt.times, err)
		}
		if chip.Count() != 8 {
			t.Errorf("busy %d times: %d commands", tt.times, chip.Count())
		}
	}
}

func TestResourceManagerChipFails(t *testing.T) {
	faults := tpmtest.Inject(t, tpmtest.Simulator(t))
	chip := tpmtest.Record(faults)
	rm := tpmtest.NewResourceManager(t, chip)
	file := openFile(t, rm)
	defer file.Close()
	key := create(t, file)

	tests := []struct {
		name  string
		fault tpmtest.Fault
		want  error
	}{
		{"command", tpmtest.Fault{Command: tpm2.TPMCCSign, Err: syscall.EIO}, syscall.EIO},
		{"connection", tpmtest.Fault{Command: tpm2.TPMCCSign, Lost: true, Err: io.EOF}, io.EOF},
		{"context load", tpmtest.Fault{Command: tpm2.TPMCCContextLoad, Err: syscall.EIO}, syscall.EFAULT},
		{"context save", tpmtest.Fault{Command: tpm2.TPMCCContextSave, RC: tpm2.TPMRCContextGap}, syscall.EFAULT},
		{"answer's length", tpmtest.Fault{Command: tpm2.TPMCCSign, Executed: true, Answer: func(r []byte) []byte { return r[:12] }}, syscall.EFAULT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			faults.Add(tt.fault)
			if err := signKey(file, key); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if err := signKey(file, key); err != nil {
				t.Errorf("after it: %v", err)
			}
			tpmtest.NoLeaks(t, tpmtest.Dial(t, chip))
		})
	}
}

// A saved session that nobody uses, on a TPM that has seen so many others since that its counter would wrap.
func TestResourceManagerContextGap(t *testing.T) {
	rm, _, _ := managed(t)
	idle, busy := openFile(t, rm), openFile(t, rm)
	defer busy.Close()
	if _, _, err := newSession(idle); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; err == nil && n < 300; n++ {
		var end func() error
		if _, end, err = newSession(busy); err == nil {
			err = end()
		}
	}
	if !errors.Is(err, syscall.EFAULT) {
		t.Fatalf("after %d sessions: %v", n, err)
	}
	idle.Close()
	if _, _, err := newSession(busy); err != nil {
		t.Errorf("after the idle file was closed: %v", err)
	}
}

func TestResourceManagerBusy(t *testing.T) {
	faults := tpmtest.Inject(t, tpmtest.Simulator(t))
	rm := tpmtest.NewResourceManager(t, faults)
	a, b := openFile(t, rm), openFile(t, rm)
	in := faults.Add(tpmtest.Fault{Command: tpm2.TPMCCGetRandom, Block: true})

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := random(a); err != nil {
			t.Errorf("first: %v", err)
		}
	})
	<-in.Blocked()
	if err := random(a); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("second on the same file: %v", err)
	}
	wg.Go(func() {
		if err := random(b); err != nil {
			t.Errorf("on another file: %v", err)
		}
	})
	in.Release()
	wg.Wait()
	if in.Fired() != 1 {
		t.Errorf("fired %d times", in.Fired())
	}
	a.Close()
	b.Close()
}
