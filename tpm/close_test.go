// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestClose: Close waits for the running signature; who waits in the queue and
// who comes later get ErrClosed.
func TestClose(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		block := r.faults.Add(tpmtest.Fault{Command: ccSign, Block: true})
		running, waiting, closed := make(chan error, 1), make(chan error, 1), make(chan error, 2)
		signTo := func(to chan error) {
			_, err := key.Sign(t.Context(), []byte("input"))
			to <- err
		}
		go signTo(running)
		<-block.Blocked()
		go signTo(waiting)
		synctest.Wait()
		go func() { closed <- r.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close has not waited for the running signature")
		case <-running:
			t.Error("the signature has ended before its command")
		case err := <-waiting:
			wantError(t, err, keystore.ErrClosed)
		}
		block.Release()
		if err := <-running; err != nil {
			t.Errorf("the running signature: %v", err)
		}
		if err := errors.Join(<-closed, r.Close()); err != nil {
			t.Errorf("Close: %v", err)
		}
		signTo(waiting)
		wantError(t, <-waiting, keystore.ErrClosed)
		if n := r.calls.Count(ccSign); n != 1 {
			t.Errorf("%d TPM2_Sign were sent, want 1", n)
		}
	})
}

// TestHandedIn: a connection that was handed in is used, and never closed.
func TestHandedIn(t *testing.T) {
	sim := tpmtest.Simulator(t)
	recorder := tpmtest.Record(sim)
	conn, err := recorder.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, sim, func(c *tpm.Config) { c.Dial, c.TPM = nil, conn })
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	r.Close()
	if _, open := recorder.Dials(); open != 1 {
		t.Errorf("%d connections are open, want the one that was handed in", open)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseUnplugged: Close tries once to clean up behind a lost connection.
func TestCloseUnplugged(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, exclusive := range []bool{false, true} {
		faults := tpmtest.Inject(t, sim)
		calls := tpmtest.Record(faults)
		s, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: t.TempDir(), Exclusive: exclusive})
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, "key", tpm.KeyOptions{})
		faults.Add(tpmtest.Fault{Err: syscall.ENODEV, Lost: true})
		faults.Add(tpmtest.Fault{Dial: true, Err: syscall.ENOENT, Times: -1})
		calls.Reset()
		wantError(t, s.Close(), keystore.ErrUnavailable) // says that the key is left
		if n, open := calls.Dials(); n != 1 || open != 0 {
			t.Errorf("exclusive %t: dialled %d times, want once; %d connections are open", exclusive, n, open)
		}
		sim.Reset() // the key was left
	}
}

// TestCloseBusy: a TPM that stays busy does not keep Close for ever.
func TestCloseBusy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		faults := tpmtest.Inject(t, sim)
		config := tpm.Config{Dial: faults.Dial, Dir: t.TempDir()}
		withPIN("1234")(&config)
		s, err := tpm.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		sign(t, create(t, s, "key", tpm.KeyOptions{PIN: true}))
		faults.Add(tpmtest.Fault{RC: tpm2.TPMRCRetry, Times: -1})
		start := time.Now()
		wantError(t, s.Close(), keystore.ErrUnavailable) // says what is left
		if took := time.Since(start); took > tpm.CloseTimeout {
			t.Errorf("Close took %v, want at most %v", took, tpm.CloseTimeout)
		}
	})
	sim.Reset() // the key and its session were left
}

// TestCloseHung: a TPM that does not answer at all does not keep Close for ever.
func TestCloseHung(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, command := range []tpm2.TPMCC{ccSign, ccFlush} { // before Close, and its own
		synctest.Test(t, func(t *testing.T) {
			faults := tpmtest.Inject(t, sim)
			calls := tpmtest.Record(faults)
			s, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			key := create(t, s, "key", tpm.KeyOptions{})
			block := faults.Add(tpmtest.Fault{Command: command, Block: true})
			go func() { _, _ = key.Sign(t.Context(), []byte("input")) }()
			synctest.Wait()
			start := time.Now()
			wantError(t, s.Close(), keystore.ErrUnavailable)
			if took, want := time.Since(start), tpm.LongestCommand+tpm.CloseTimeout; took != want {
				t.Errorf("%v: Close took %v, want %v", tpmtest.Names([]tpm2.TPMCC{command}), took, want)
			}
			block.Release()
			synctest.Wait()
			if _, open := calls.Dials(); open != 0 {
				t.Errorf("%d connections are open", open)
			}
		})
		sim.Reset() // the key may be left
	}
}

// stalling is a connection that answers nothing more once the TPM is stalled, until
// it is closed.
type stalling struct {
	transport.TPMCloser
	stalled *atomic.Bool
	closed  chan struct{}
}

func (c stalling) Send(command []byte) ([]byte, error) {
	if c.stalled.Load() {
		<-c.closed
		return nil, net.ErrClosed
	}
	return c.TPMCloser.Send(command)
}

func (c stalling) Close() error {
	close(c.closed)
	return c.TPMCloser.Close()
}

// TestStalled: a connection on which nothing is answered any more is given up, and
// the Store goes on with a new one, or closes.
func TestStalled(t *testing.T) {
	sim := tpmtest.Simulator(t)
	rm := tpmtest.NewResourceManager(t, sim)
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var stalled atomic.Bool
			dials := 0
			dial := func(ctx context.Context) (transport.TPMCloser, error) {
				dials++
				conn, err := rm.Dial(ctx)
				return stalling{conn, &stalled, make(chan struct{})}, err
			}
			s, err := tpm.Open(t.Context(), tpm.Config{Dial: dial, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			key := create(t, s, "key", tpm.KeyOptions{})
			stalled.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = key.Sign(ctx, []byte("input"))
			wantError(t, err, context.DeadlineExceeded)
			if closing {
				start := time.Now()
				if err := s.Close(); err != nil || time.Since(start) != tpm.CloseTimeout {
					t.Errorf("Close took %v, want %v: %v", time.Since(start), tpm.CloseTimeout, err)
				}
				if dials != 1 {
					t.Errorf("dialled %d times, want once", dials)
				}
				return
			}
			stalled.Store(false) // but for the command that is waited for
			sign(t, key)
			if dials != 2 {
				t.Errorf("dialled %d times, want twice", dials)
			}
			s.Close()
		})
	}
}

// TestCloseEndsWaits: neither a Dial nor a user who is asked for a PIN keeps Close,
// and whoever waits for them gets ErrClosed.
func TestCloseEndsWaits(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, what := range []string{"Dial", "PIN"} {
		synctest.Test(t, func(t *testing.T) {
			faults := tpmtest.Inject(t, sim)
			var redial atomic.Bool
			config := tpm.Config{Dir: t.TempDir(), Dial: func(ctx context.Context) (transport.TPMCloser, error) {
				if redial.Load() {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return faults.Dial(ctx)
			}}
			if what == "PIN" {
				config.PIN = func(ctx context.Context, _ string) ([]byte, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			}
			s, err := tpm.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			if what == "Dial" {
				faults.Add(tpmtest.Fault{Err: syscall.ENODEV, Lost: true})
				redial.Store(true)
			}
			created := make(chan error, 1)
			go func() {
				_, err := s.Create(context.Background(), "key")
				created <- err
			}()
			synctest.Wait()
			start := time.Now()
			if err := s.Close(); err != nil || time.Since(start) != 0 {
				t.Errorf("%s: Close took %v: %v", what, time.Since(start), err)
			}
			wantError(t, <-created, keystore.ErrClosed)
		})
	}
}

// TestFlushIsGivenUp: what cannot be flushed is tried three times, before the next
// operations, and not for ever. Close says that it is left.
func TestFlushIsGivenUp(t *testing.T) {
	sim := tpmtest.Simulator(t)
	faults := tpmtest.Inject(t, sim)
	calls := tpmtest.Record(faults)
	s, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: filepath.Join(memoryDir(t), "keys")})
	if err != nil {
		t.Fatal(err)
	}
	faults.Add(tpmtest.Fault{Command: ccFlush, Times: -1, RC: tpm2.TPMRCFailure})
	key := create(t, s, "key", tpm.KeyOptions{})
	for range 10 {
		sign(t, key)
	}
	if n := calls.Count(ccFlush); n != 3 {
		t.Errorf("TPM2_FlushContext was sent %d times for the parent, want 3", n)
	}
	wantError(t, s.Close(), keystore.ErrUnavailable)
	for _, left := range tpmtest.Handles(t, sim, tpm2.TPMHTTransient) {
		flush(t, sim, left)
	}
}
