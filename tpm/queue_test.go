// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestCancelRunning: the caller whose command runs stops waiting, the command
// ends, and the next one comes after it.
func TestCancelRunning(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	block := r.faults.Add(tpmtest.Fault{Command: ccSign, Block: true})
	r.calls.Reset()

	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error)
	go func() {
		_, err := key.Sign(ctx, []byte("input"))
		cancelled <- err
	}()
	<-block.Blocked()
	cancel()
	wantError(t, <-cancelled, context.Canceled)

	// Who waits behind it can stop waiting, too, and has sent nothing.
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := key.Sign(ctx, []byte("input"))
		cancelled <- err
	}()
	cancel()
	wantError(t, <-cancelled, context.Canceled)

	block.Release()
	sign(t, key)
	r.calls.Want(t, ccSign, ccSign)
	if n := r.calls.MaxInFlight(); n != 1 {
		t.Errorf("%d commands at a time, want 1", n)
	}
}

// TestCancelledBefore: nothing is sent for a context that has ended.
func TestCancelledBefore(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	r.calls.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, signErr := key.Sign(ctx, nil)
	_, createErr := r.Create(ctx, "other")
	_, openErr := r.Open(ctx, "key")
	_, listErr := r.List(ctx)
	for what, err := range map[string]error{
		"Sign": signErr, "Create": createErr, "Open": openErr, "List": listErr, "Delete": r.Delete(ctx, "key"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	r.calls.Want(t)
	sign(t, open(t, r.Store, "key"))
}

// TestCancelledCreate: a Create whose caller has gone leaves no file and no
// object, wherever it was.
func TestCancelledCreate(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, command := range []tpm2.TPMCC{ccCreatePrimary, ccCreate, ccLoad, ccFlush} {
		r := newRig(t, sim)
		block := r.faults.Add(tpmtest.Fault{Command: command, Block: true, Executed: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.Create(ctx, "key")
			done <- err
		}()
		<-block.Blocked()
		cancel()
		wantError(t, <-done, context.Canceled)
		block.Release()
		if names, err := r.List(t.Context()); len(names) != 0 || err != nil {
			t.Errorf("%v: List: %q, %v", command, names, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		noLeaks(t, sim)
	}
}

// TestGoroutines: 32 goroutines sign with four keys, one of them with a PIN, and
// the TPM gets one command at a time.
func TestGoroutines(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("1234"))
	keys := []keystore.Key{
		create(t, r.Store, "a", tpm.KeyOptions{}),
		create(t, r.Store, "b", tpm.KeyOptions{Algorithm: "ES384"}),
		create(t, r.Store, "c", tpm.KeyOptions{PCRs: []int{7}}),
		create(t, r.Store, "d", tpm.KeyOptions{PIN: true}),
	}
	r.calls.Reset()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			key := keys[i%len(keys)]
			for range 4 {
				signature, err := key.Sign(t.Context(), []byte{byte(i)})
				if err != nil || !verify(key, []byte{byte(i)}, signature) {
					t.Errorf("goroutine %d: %x, %v", i, signature, err)
				}
			}
		})
	}
	wg.Wait()
	if n := r.calls.MaxInFlight(); n != 1 {
		t.Errorf("%d commands at a time, want 1", n)
	}
	if n := r.calls.Count(ccSign); n != 128 {
		t.Errorf("%d signatures were made, want 128", n)
	}
}

// TestPINOnce: many goroutines that need the PIN at the same time ask for it
// once.
func TestPINOnce(t *testing.T) {
	sim := tpmtest.Simulator(t)
	var asked atomic.Int64
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) {
			asked.Add(1)
			return []byte("1234"), nil
		}
	})
	key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	asked.Store(0)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { sign(t, key) })
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the PIN was asked for %d times, want once", n)
	}
}
