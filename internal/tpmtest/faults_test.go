// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// faulty is a simulator with faults before it, seen from both sides.
func faulty(t *testing.T) (chip *tpmtest.Recorder, faults *tpmtest.Faults) {
	chip = tpmtest.Record(tpmtest.Simulator(t))
	return chip, tpmtest.Inject(t, chip)
}

func TestFaults(t *testing.T) {
	chip, faults := faulty(t)
	tests := []struct {
		name     string
		fault    tpmtest.Fault
		want     []error // of one TPM2_GetRandom after another
		executed int     // by the chip
	}{
		{"none", tpmtest.Fault{Command: tpm2.TPMCCSign, Err: io.EOF}, []error{nil}, 1},
		{"error code", tpmtest.Fault{Command: tpm2.TPMCCGetRandom, RC: tpm2.TPMRCLockout}, []error{tpm2.TPMRCLockout, nil}, 1},
		{"any command", tpmtest.Fault{RC: tpm2.TPMRCNVRate}, []error{tpm2.TPMRCNVRate, nil}, 1},
		{"the third and fourth", tpmtest.Fault{Skip: 2, Times: 2, RC: tpm2.TPMRCRetry}, []error{nil, nil, tpm2.TPMRCRetry, tpm2.TPMRCRetry, nil}, 3},
		{"always", tpmtest.Fault{Times: -1, Err: syscall.EBUSY}, []error{syscall.EBUSY, syscall.EBUSY, syscall.EBUSY}, 0},
		{"system error", tpmtest.Fault{Err: syscall.ENOMEM}, []error{syscall.ENOMEM, nil}, 1},
		{"lost after the command", tpmtest.Fault{Executed: true, Err: io.EOF}, []error{io.EOF, nil}, 2},
		{"error code after the command", tpmtest.Fault{Executed: true, RC: tpm2.TPMRCTesting}, []error{tpm2.TPMRCTesting}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			chip.Reset()
			tpm := tpmtest.Dial(t, faults)
			in := faults.Add(tt.fault)
			defer faults.Clear()
			fired := 0
			for i, want := range tt.want {
				if err := random(tpm); !errors.Is(err, want) {
					t.Errorf("command %d: %v, want %v", i+1, err, want)
				}
				if want != nil {
					fired++
				}
			}
			if in.Fired() != fired {
				t.Errorf("fired %d times, want %d", in.Fired(), fired)
			}
			if n := chip.Count(); n != tt.executed {
				t.Errorf("%d commands at the chip, want %d", n, tt.executed)
			}
		})
	}
}

func TestFaultsOrder(t *testing.T) {
	_, faults := faulty(t)
	tpm := tpmtest.Dial(t, faults)
	faults.Add(tpmtest.Fault{RC: tpm2.TPMRCRetry})
	faults.Add(tpmtest.Fault{RC: tpm2.TPMRCLockout})
	for i, want := range []error{tpm2.TPMRCRetry, tpm2.TPMRCLockout, nil} {
		if err := random(tpm); !errors.Is(err, want) {
			t.Errorf("command %d: %v, want %v", i+1, err, want)
		}
	}
}

func TestFaultsAnswer(t *testing.T) {
	_, faults := faulty(t)
	tpm := tpmtest.Dial(t, faults)
	var real []byte
	faults.Add(tpmtest.Fault{Executed: true, Answer: func(r []byte) []byte {
		real = r
		return r[:len(r)-1]
	}})
	if err := random(tpm); err == nil {
		t.Error("a truncated answer passed")
	}
	if len(real) != 10+2+8 {
		t.Errorf("real answer: %x", real)
	}
}

func TestFaultsLost(t *testing.T) {
	_, faults := faulty(t)
	tpm := tpmtest.Dial(t, faults)
	faults.Add(tpmtest.Fault{Lost: true, Err: syscall.ENODEV})
	for range 2 {
		if err := random(tpm); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("lost connection: %v", err)
		}
	}
	if err := random(tpmtest.Dial(t, faults)); err != nil {
		t.Errorf("new connection: %v", err)
	}
}

func TestFaultsDial(t *testing.T) {
	_, faults := faulty(t)
	faults.Add(tpmtest.Fault{Dial: true, Err: syscall.EACCES})
	if _, err := faults.Dial(t.Context()); !errors.Is(err, syscall.EACCES) {
		t.Errorf("dial: %v", err)
	}
	in := faults.Add(tpmtest.Fault{Dial: true, Block: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-in.Blocked()
		cancel()
	}()
	if _, err := faults.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("blocked dial: %v", err)
	}
	if _, err := faults.Dial(t.Context()); err != nil {
		t.Errorf("third dial: %v", err)
	}
}

func TestFaultsBlock(t *testing.T) {
	chip, faults := faulty(t)
	tpm := tpmtest.Dial(t, faults)
	for _, executed := range []bool{false, true} {
		chip.Reset()
		in := faults.Add(tpmtest.Fault{Block: true, Executed: executed})
		done := make(chan error)
		go func() { done <- random(tpm) }()
		<-in.Blocked()
		if n := chip.Count(); (n == 1) != executed {
			t.Errorf("executed %t: %d commands at the chip before Release", executed, n)
		}
		in.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if chip.Count() != 1 {
			t.Errorf("executed %t: %d commands at the chip", executed, chip.Count())
		}
	}
}
