// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestOpenCancelled: Open ends with its context also where the TPM or Dial hangs,
// and what it has opened is closed in the end.
func TestOpenCancelled(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, fault := range map[string]tpmtest.Fault{
		"first command": {Command: ccGetCapability, Block: true},
		"Dial":          {Dial: true, Block: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := tpmtest.Inject(t, sim)
				calls := tpmtest.Record(faults)
				block := faults.Add(fault)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					<-block.Blocked()
					cancel()
				}()
				// Dial need not care for its context.
				dial := func(context.Context) (transport.TPMCloser, error) { return calls.Dial(context.Background()) }
				_, err := tpm.Open(ctx, tpm.Config{Dial: dial, Dir: t.TempDir(), Exclusive: true})
				wantError(t, err, context.Canceled)
				block.Release()
				synctest.Wait()
				if dialled, open := calls.Dials(); dialled != 1 || open != 0 {
					t.Errorf("dialled %d times, want once; %d connections are open", dialled, open)
				}
			})
		})
	}
}

// TestOpenDialsOnce: what cannot be opened is not tried again to clean it up.
func TestOpenDialsOnce(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		calls := tpmtest.Record(unreachable{})
		_, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: t.TempDir(), Exclusive: exclusive})
		wantError(t, err, keystore.ErrUnavailable, syscall.ENOENT)
		if n, _ := calls.Dials(); n != 1 {
			t.Errorf("exclusive %t: dialled %d times, want once", exclusive, n)
		}
	}
}

// unreachable is a device that cannot be opened.
type unreachable struct{}

func (unreachable) Dial(context.Context) (transport.TPMCloser, error) { return nil, syscall.ENOENT }

// TestDialWithDeadline: the deadline of a dialer is not that of the caller.
func TestDialWithDeadline(t *testing.T) {
	for _, cause := range []error{context.DeadlineExceeded, context.Canceled} {
		dial := func(context.Context) (transport.TPMCloser, error) { return nil, cause }
		_, err := tpm.Open(t.Context(), tpm.Config{Dial: dial, Dir: t.TempDir()})
		wantError(t, err, keystore.ErrUnavailable, cause)
	}
}

// TestDialNothing: a Dial that returns neither a connection nor an error.
func TestDialNothing(t *testing.T) {
	dial := func(context.Context) (transport.TPMCloser, error) { return nil, nil }
	_, err := tpm.Open(t.Context(), tpm.Config{Dial: dial, Dir: t.TempDir()})
	wantError(t, err, keystore.ErrUnavailable)
}

// TestOpenFaults: what can be wrong when the device is opened.
func TestOpenFaults(t *testing.T) {
	for _, cause := range []error{
		syscall.EACCES, syscall.EPERM, syscall.EBUSY, syscall.ENOENT, syscall.ENODEV, syscall.ENXIO, io.ErrUnexpectedEOF,
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			faults := tpmtest.Inject(t, nil)
			faults.Add(tpmtest.Fault{Dial: true, Times: -1, Err: &os.PathError{Op: "open", Path: "/dev/tpm0", Err: cause}})
			_, err := tpm.Open(t.Context(), tpm.Config{Dial: faults.Dial, Dir: t.TempDir()})
			wantError(t, err, keystore.ErrUnavailable, cause)
			t.Log(err)
		})
	}
}
