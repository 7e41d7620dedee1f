// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestPINNotGuessable: whoever has seen all that passed between program and TPM cannot
// try PINs on it. An HMAC would let him if its session were not salted, or salted to
// another key than the one that is pinned.
func TestPINNotGuessable(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			key := create(t, r.Store, "key", o)
			for range 4 { // with a session that is kept, and with one that is not
				prove(t, key)
				time.Sleep(tpm.IdleTime)
				synctest.Wait() // for what is due at the same moment
				sign(t, key)
				time.Sleep(tpm.IdleTime)
				synctest.Wait()
			}
			sim.Reset()
			sign(t, key)
			sessions := 0
			for _, e := range r.calls.Exchanges() {
				if e.Code != ccStartSession {
					continue
				}
				sessions++
				key, salt := binary.BigEndian.Uint32(e.Command[10:]), saltOf(e.Command)
				if key == uint32(tpm2.TPMRHNull) || len(salt) == 0 {
					t.Errorf("%+v: session %d is not salted", o, sessions)
				}
			}
			if sessions < 5 {
				t.Errorf("%+v: only %d sessions were opened", o, sessions)
			}
		})
	}
}

// saltOf returns the encryptedSalt of a TPM2_StartAuthSession.
func saltOf(command []byte) []byte {
	rest := command[10+4+4:]                              // header, tpmKey, bind
	rest = rest[2+int(binary.BigEndian.Uint16(rest)):]    // nonceCaller
	return rest[2 : 2+int(binary.BigEndian.Uint16(rest))] // encryptedSalt
}

// TestSaltedToPinned: a storage root key that is not the pinned one, as of somebody who
// answers in the TPM's place, gets no salt.
func TestSaltedToPinned(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, prepare := range map[string]func(t *testing.T, s *tpm.Store) keystore.Key{
		"open": func(t *testing.T, s *tpm.Store) keystore.Key { return nil },
		"sign": func(t *testing.T, s *tpm.Store) keystore.Key {
			key := open(t, s, "key")
			time.Sleep(tpm.IdleTime - time.Second) // nothing is saved yet
			sim.Reset()                            // and nothing is loaded
			return key
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, sim, withPIN("1234"))
				create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
				r.Close()
				s := r.reopen(t)
				defer s.Close()
				key := prepare(t, s)
				r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, Executed: true, Times: -1, Answer: anotherPoint(t)})
				r.calls.Reset()
				var err error
				if key == nil {
					_, err = s.Open(t.Context(), "key")
				} else {
					_, err = key.Sign(t.Context(), []byte("input"))
				}
				wantError(t, err, keystore.ErrKeyLost)
				if n := r.calls.Count(ccStartSession); n != 0 {
					t.Errorf("%d sessions were opened", n)
				}
				r.faults.Clear()
			})
		})
	}
}

// anotherPoint puts the point of another key into the answer to TPM2_CreatePrimary.
func anotherPoint(t *testing.T) func(real []byte) []byte {
	t.Helper()
	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := another.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return func(real []byte) []byte {
		const size = 32
		at := bytes.Index(real, []byte{0, size})
		for ; at >= 0 && at+2*(2+size) < len(real); at++ {
			if bytes.Equal(real[at:at+2], []byte{0, size}) && bytes.Equal(real[at+2+size:at+4+size], []byte{0, size}) {
				forged := bytes.Clone(real)
				copy(forged[at+2:], encoded[1:1+size])
				copy(forged[at+4+size:], encoded[1+size:])
				return forged
			}
		}
		t.Error("there is no point in the answer")
		return real
	}
}

// TestIdleEachCommandFails lets every command fail that ends what is idle, and every
// one of the signature after it. The key then signs, and nothing is left in the TPM.
func TestIdleEachCommandFails(t *testing.T) {
	sim := tpmtest.Simulator(t)
	lost := errors.New("lost")
	for name, way := range map[string]tpmtest.Fault{
		"TPM_RC_FAILURE":       {RC: tpm2.TPMRCFailure},
		"TPM_RC_REFERENCE_H0":  {RC: tpm2.TPMRCReferenceH0},
		"TPM_RC_OBJECT_MEMORY": {RC: tpm2.TPMRCObjectMemory},
		"lost":                 {Err: lost, Lost: true},
		"lost answer":          {Err: lost, Lost: true, Executed: true},
		"torn answer":          {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"success without more": {Executed: true, Answer: func([]byte) []byte {
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			injected := 0
			for skip, hit := 0, true; hit; skip++ {
				synctest.Test(t, func(t *testing.T) {
					exclusive := func(c *tpm.Config) { c.Exclusive = way.Executed || way.Answer != nil }
					r := newRig(t, sim, withPIN("1234"), exclusive)
					key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true, PCRs: []int{7}})
					sign(t, key)
					fault := way
					fault.Skip = skip
					injection := r.faults.Add(fault)
					for range 3 {
						time.Sleep(tpm.IdleTime)
						synctest.Wait()
						if _, err := key.Sign(t.Context(), []byte("input")); err != nil {
							hasSentinel(t, err)
						}
					}
					if hit = injection.Fired() > 0; hit {
						injected++
					}
					r.faults.Clear()
					sign(t, key)
				})
				if t.Failed() {
					t.Fatalf("command %d", skip)
				}
			}
			if injected < 15 {
				t.Errorf("only %d failures were injected", injected)
			}
		})
	}
}
