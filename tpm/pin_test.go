// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestPINNotOnTheBus: neither the PIN nor the digest to be signed passes in the
// clear, whatever is done with the key.
func TestPINNotOnTheBus(t *testing.T) {
	const pin = "correct horse battery"
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		r := newRig(t, sim, withPIN(pin))
		key := create(t, r.Store, "key", o)
		sign(t, key)
		sim.Reset()
		sign(t, key)
		if err := r.Persist(t.Context(), "key", 0x81010001); err != nil {
			t.Fatal(err)
		}
		sign(t, open(t, r.Store, "key"))
		if err := r.Delete(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if n := r.calls.Count(); n < 20 {
			t.Fatalf("only %d commands were recorded", n)
		}
		if r.calls.Saw([]byte(pin)) || r.calls.Saw([]byte(pin)[:8]) {
			t.Errorf("%+v: the PIN was on the bus", o)
		}
	}
}

// TestOwnerAuthNotOnTheBus: the same for the owner hierarchy's password.
func TestOwnerAuthNotOnTheBus(t *testing.T) {
	const password = "owner password"
	sim := tpmtest.Simulator(t)
	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", password)
	r := newRig(t, sim, func(c *tpm.Config) { c.OwnerAuth = []byte(password) })
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	if err := r.Persist(t.Context(), "key", 0x81010001); err != nil {
		t.Fatal(err)
	}
	if err := r.Unpersist(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if r.calls.Saw([]byte(password)) {
		t.Error("the password was on the bus")
	}
	for _, wrong := range []string{"", "wrong"} {
		s := newRig(t, sim, func(c *tpm.Config) { c.OwnerAuth = []byte(wrong) })
		_, err := s.Create(t.Context(), "key")
		wantError(t, err, keystore.ErrAuth)
		if names, _ := s.List(t.Context()); len(names) != 0 {
			t.Errorf("%q was left", names)
		}
		s.Close()
	}
}

// TestIdleSession: an unused session is flushed and the PIN asked for again.
func TestIdleSession(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range kinds[1:] {
		synctest.Test(t, func(t *testing.T) {
			var given [][]byte
			r := newRig(t, sim, func(c *tpm.Config) {
				c.PIN = func(context.Context, string) ([]byte, error) {
					given = append(given, []byte("1234"))
					return given[len(given)-1], nil
				}
			})
			sessions := func() int { return len(tpmtest.Handles(t, sim, tpm2.TPMHTHMACSession)) }
			key := create(t, r.Store, "key", o)
			for range 3 { // used often enough, it stays
				sign(t, key)
				time.Sleep(tpm.IdleTime - time.Millisecond)
			}
			if n := sessions(); n != 1 {
				t.Errorf("%+v: %d sessions are open, want 1", o, n)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if n := sessions(); n != 0 {
				t.Errorf("%+v: %d sessions are open when idle, want 0", o, n)
			}
			sign(t, key)
			if want := 3; o.PIN && len(given) != want {
				t.Errorf("%+v: the PIN was asked for %d times, want %d", o, len(given), want)
			}
			for _, pin := range given {
				if !bytes.Equal(pin, make([]byte, len(pin))) {
					t.Errorf("%+v: the returned PIN was not overwritten", o)
				}
			}
		})
	}
}

// TestWrongPIN: one try, one error, and the next one asks again.
func TestWrongPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	pin := "right"
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) { return []byte(pin), nil }
	})
	key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	pin = "wrong"
	r.calls.Reset()
	_, err := key.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
	if n := r.calls.Count(ccSign); n != 1 {
		t.Errorf("TPM2_Sign was sent %d times with a wrong PIN, want once", n)
	}
	pin = "right"
	sign(t, key)
}

// TestNoPIN: the callback fails, ends with its context, or is not there.
func TestNoPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	refused := errors.New("the user went home")
	answer := func(context.Context) ([]byte, error) { return []byte("1234"), nil }
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(ctx context.Context, _ string) ([]byte, error) { return answer(ctx) }
	})
	key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	free := create(t, r.Store, "free", tpm.KeyOptions{})

	answer = func(context.Context) ([]byte, error) { return nil, refused }
	_, err := key.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrAuth, refused)

	// While the user thinks, other keys sign.
	ctx, cancel := context.WithCancel(t.Context())
	answer = func(ctx context.Context) ([]byte, error) {
		sign(t, free)
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, err = key.Sign(ctx, []byte("input"))
	wantError(t, err, context.Canceled)
	r.Close()

	config := r.config
	config.PIN = nil
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = open(t, s, "key").Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrAuth)
}

// TestForgedAnswer: an answer that was changed on the bus is found out by its
// HMAC.
func TestForgedAnswer(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("1234"))
	key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	sign(t, key)
	r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Times: -1, Answer: func(real []byte) []byte {
		real[30] ^= 1 // within the signature, which is not verified any more
		return real
	}})
	_, err := key.Sign(t.Context(), []byte("input"))
	wantError(t, err, keystore.ErrUnavailable)
	r.faults.Clear()
	sign(t, key)
}

// TestPINOneAtATime: whoever asks for a PIN, of whatever key, waits for those who
// ask already, and can be cancelled.
func TestPINOneAtATime(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		var asking, most atomic.Int64
		r := newRig(t, sim, func(c *tpm.Config) {
			c.PIN = func(context.Context, string) ([]byte, error) {
				most.Store(max(most.Load(), asking.Add(1)))
				defer asking.Add(-1)
				time.Sleep(time.Second) // the user thinks
				return []byte("1234"), nil
			}
		})
		key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { create(t, r.Store, fmt.Sprint(i), tpm.KeyOptions{PIN: true}) })
			wg.Go(func() { sign(t, key) })
		}
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := r.CreateKey(ctx, "cancelled", tpm.KeyOptions{PIN: true})
		wantError(t, err, context.DeadlineExceeded)
		wg.Wait()
		if n := most.Load(); n != 1 {
			t.Errorf("%d were asking at a time, want 1", n)
		}
	})
}

// TestPINOutlivesCaller: a PIN is not overwritten while the TPM still gets it,
// but afterwards.
func TestPINOutlivesCaller(t *testing.T) {
	sim := tpmtest.Simulator(t)
	var given []byte
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) {
			given = []byte("1234")
			return given, nil
		}
	})
	block := r.faults.Add(tpmtest.Fault{Command: ccStartSession, Block: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-block.Blocked()
		cancel()
	}()
	_, err := r.CreateKey(ctx, "key", tpm.KeyOptions{PIN: true})
	wantError(t, err, context.Canceled)
	if string(given) != "1234" {
		t.Errorf("the PIN is %q while TPM2_Create needs it", given)
	}
	block.Release()
	r.Close()
	if !bytes.Equal(given, make([]byte, 4)) {
		t.Error("the PIN was not overwritten")
	}
}

// TestPINCancelled: a caller who has gone has not given a wrong PIN.
func TestPINCancelled(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("1234"))
	create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
	r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	config := r.config
	config.PIN = func(ctx context.Context, _ string) ([]byte, error) {
		cancel()
		return nil, ctx.Err()
	}
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = open(t, s, "key").Sign(ctx, []byte("input"))
	wantError(t, err, context.Canceled)
	if errors.Is(err, keystore.ErrAuth) {
		t.Errorf("%q matches keystore.ErrAuth", err)
	}
}
