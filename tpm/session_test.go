// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// eachWay runs a test on a raw device and behind a resource manager.
func eachWay(t *testing.T, test func(*testing.T, tpmtest.Device)) {
	sim := tpmtest.Simulator(t)
	t.Run("raw device", func(t *testing.T) { test(t, sim) })
	t.Run("resource manager", func(t *testing.T) { test(t, tpmtest.NewResourceManager(t, sim)) })
}

// slow is how long a TPM with a slow chip takes for commands, in units of a
// signature.
var slow = map[tpm2.TPMCC]float64{ccSign: 1, ccStartSession: 1, ccCreatePrimary: 2}

// TestPINUses: what a signature costs a key with a PIN, in commands and in time, by
// how long after the last one it is. All commands are counted, also those that end
// what is idle.
func TestPINUses(t *testing.T) {
	for _, tt := range []struct {
		pause    time.Duration
		commands int
		time     float64
	}{
		{6 * time.Second, 3, 1.3},
		{25 * time.Second, 3, 1.3},
		{60 * time.Second, 4, 2.2},
		{600 * time.Second, 4, 2.2},
	} {
		t.Run(fmt.Sprint(tt.pause), func(t *testing.T) {
			eachWay(t, func(t *testing.T, d tpmtest.Device) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, d, withPIN("1234"))
					key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
					sign(t, key)
					for i := range 5 {
						r.calls.Reset()
						time.Sleep(tt.pause)
						synctest.Wait()
						if i == 0 {
							r.calls.Reset() // the storage root key is saved once
						}
						before := r.calls.Count()
						sign(t, key)
						if n := r.calls.Count(); n > tt.commands {
							t.Errorf("signature %d: %d commands, want at most %d: %s", i, n, tt.commands, tpmtest.Names(r.calls.Codes()))
						}
						took := 0.0
						for _, code := range r.calls.Codes()[before:] {
							took += slow[code]
						}
						if took > tt.time {
							t.Errorf("signature %d: it took as long as %.1f of TPM2_Sign, want at most %.1f", i, took, tt.time)
						}
					}
				})
			})
		})
	}
}

// TestPINOpenAndSign: the session is opened while the storage root key is there.
func TestPINOpenAndSign(t *testing.T) {
	eachWay(t, func(t *testing.T, d tpmtest.Device) {
		r := newRig(t, d, withPIN("1234"))
		create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		r.Close()
		s := r.reopen(t)
		defer s.Close()
		r.calls.Reset()
		sign(t, open(t, s, "key"))
		r.calls.Want(t, ccCreatePrimary, ccLoad, ccStartSession, ccFlush, ccSign)
	})
}

// TestPINKeysInTurn: one session serves ten keys, each with its own PIN.
func TestPINKeysInTurn(t *testing.T) {
	eachWay(t, func(t *testing.T, d tpmtest.Device) {
		r := newRig(t, d, pinByName)
		var keys []keystore.Key
		for i := range 10 {
			keys = append(keys, create(t, r.Store, fmt.Sprint(i), tpm.KeyOptions{PIN: true}))
		}
		for _, key := range keys {
			sign(t, key)
		}
		r.calls.Reset()
		for range 2 {
			for _, key := range keys {
				sign(t, key)
			}
		}
		if n := r.calls.Count(); n != 3*20 {
			t.Errorf("%d commands for 20 signatures, want 60", n)
		}
		if n := r.calls.Count(ccStartSession); n != 0 {
			t.Errorf("%d sessions were opened", n)
		}
	})
}

// TestPINsOfOthers: a key's wrong PIN is wrong although the session has just served
// another key with that PIN, and that one goes on signing.
func TestPINsOfOthers(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		r := newRig(t, sim, pinByName)
		a, b := create(t, r.Store, "a", o), create(t, r.Store, "b", o)
		sign(t, a)
		sign(t, b)
		r.Close()

		config := r.config
		withPIN("PIN of a")(&config)
		s, err := tpm.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		a, b = open(t, s, "a"), open(t, s, "b")
		sign(t, a)
		_, err = b.Sign(t.Context(), []byte("input"))
		wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
		sign(t, a)
		s.Close()
	}
}

// TestPINUnproved: a PIN is not kept before the TPM has taken it. A wrong one that met
// another error first would be refused as one that nobody had given, and tried again.
func TestPINUnproved(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, use := range map[string]func(key keystore.Key) error{
		"Sign": func(key keystore.Key) error {
			_, err := key.Sign(t.Context(), []byte("input"))
			return err
		},
		"Evidence": func(key keystore.Key) error {
			_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture() // no wrong tries are counted
			r := newRig(t, sim, withPIN("right"))
			create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
			r.Close()
			config := r.config
			withPIN("wrong")(&config)
			s, err := tpm.Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			key := open(t, s, "key")
			command := ccSign
			if name == "Evidence" {
				command = ccCertify
			}
			r.faults.Add(tpmtest.Fault{Command: command, RC: tpm2.TPMRCFailure})
			wantError(t, use(key), keystore.ErrUnavailable)
			for range 3 {
				wantError(t, use(key), keystore.ErrAuth, tpm2.TPMRCAuthFail)
			}
			if status, err := s.Status(t.Context()); err != nil || status.Lockout.Failures != 1 {
				t.Errorf("%d wrong tries were counted, want 1: %v", status.Lockout.Failures, err)
			}
		})
	}
}

// TestContextGap: a session that is idle behind a resource manager makes nobody's
// sessions fail, however many contexts are saved meanwhile. The simulator allows 255
// between the oldest and the newest.
func TestContextGap(t *testing.T) {
	sim := tpmtest.Simulator(t)
	rm := tpmtest.NewResourceManager(t, sim)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rm, withPIN("1234"))
		key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		sign(t, key)
		other, err := rm.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		_, end, err := tpm2.HMACSession(other, tpm2.TPMAlgSHA256, 16)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // and 30 seconds are the end of the session
			for i := range 200 {
				// The resource manager saves the session after each command.
				if _, err := (tpm2.GetRandom{BytesRequested: 1}).Execute(other); err != nil {
					t.Fatalf("another program's command %d: %v", i, err)
				}
			}
			time.Sleep(tpm.RefreshTime)
			synctest.Wait()
		}
		r.calls.Reset()
		sign(t, key)
		r.calls.Want(t, ccSign)
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// pinByName gives each key a PIN of its own.
func pinByName(c *tpm.Config) {
	c.PIN = func(_ context.Context, name string) ([]byte, error) { return []byte("PIN of " + name), nil }
}
