package tpm_test

import (
	"context"
	"errors"
	"sync"
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
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
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
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took > tpm.CloseTimeout {
			t.Errorf("Close took %v, want at most %v", took, tpm.CloseTimeout)
		}
	})
	sim.Reset() // the key and its session were left
}

// TestCloseHung: a TPM that does not answer at all does not keep Close for ever,
// and is tidied up if it comes back.
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
			if took := time.Since(start); took != tpm.LongestCommand {
				t.Errorf("%v: Close took %v, want %v", tpmtest.Names([]tpm2.TPMCC{command}), took, tpm.LongestCommand)
			}
			block.Release()
			synctest.Wait()
			if _, open := calls.Dials(); open != 0 {
				t.Errorf("%d connections are open", open)
			}
		})
		noLeaks(t, sim)
	}
}

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
