// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestStrangeAnswers: answers that are well-formed by themselves, and none to the
// command.
func TestStrangeAnswers(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	tag := func(tag uint16) func([]byte) []byte {
		return func(real []byte) []byte {
			real = bytes.Clone(real)
			binary.BigEndian.PutUint16(real, tag)
			return real
		}
	}
	for name, answer := range map[string]func(real []byte) []byte{
		"tag without sessions": tag(0x8001),
		"tag of TPM 1.2":       tag(0x00c4),
		"error with sessions":  func([]byte) []byte { return []byte{0x80, 2, 0, 0, 0, 10, 0, 0, 1, 1} },
		"larger than announced": func(real []byte) []byte {
			return append(bytes.Clone(real), 0)
		},
		"huge": func(real []byte) []byte {
			huge := append(bytes.Clone(real), make([]byte, 1<<20)...)
			binary.BigEndian.PutUint32(huge[2:], uint32(len(huge)))
			return huge
		},
		"nothing": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Answer: answer, Times: 2})
			_, err := key.Sign(t.Context(), []byte("input"))
			wantError(t, err, keystore.ErrUnavailable)
			if !strings.Contains(err.Error(), "garbled") {
				t.Errorf("%q does not say that the answer was garbled", err)
			}
			sign(t, key)
		})
	}
}

// TestAnswersOfOthers gives every command the answer to every other: an error or
// the right outcome, and no signature that is wrong.
func TestAnswersOfOthers(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{}, {PCRs: []int{7}, PIN: true}} {
		r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
		sign(t, create(t, r.Store, "key", o))
		create(t, r.Store, "other", tpm.KeyOptions{})
		exchanges := make(map[tpm2.TPMCC]tpmtest.Exchange)
		for _, e := range r.calls.Exchanges() {
			exchanges[e.Code] = e
		}
		r.Close()
		hit := true
		for skip := 0; hit; skip++ {
			for _, e := range exchanges {
				s := r.reopen(t)
				in := r.faults.Add(tpmtest.Fault{Skip: skip, Executed: true, Answer: func([]byte) []byte { return e.Response }})
				key, err := s.Open(t.Context(), "key")
				var signature []byte
				if err == nil {
					signature, err = key.Sign(t.Context(), []byte("input"))
				}
				if err != nil {
					hasSentinel(t, err)
				} else if !verify(key, []byte("input"), signature) {
					t.Errorf("%+v: with the answer to %v for command %d, the signature %x does not verify", o, tpmtest.Names([]tpm2.TPMCC{e.Code}), skip, signature)
				}
				hit = in.Fired() == 1
				r.faults.Clear()
				s.Close()
			}
		}
		noLeaks(t, sim)
	}
}

// TestDamagedAnswer: an answer of the TPM that is damaged on its way makes nobody
// lose a key, and leaves no key that cannot be used, no persistent one that nobody
// knows of, and no wrong signature.
func TestDamagedAnswer(t *testing.T) {
	sim := tpmtest.Simulator(t)
	const step = 9 // octets; each of them takes too long
	var damaged, failed int
	for _, whole := range []bool{false, true} {
		for skip, more := 0, true; more; skip++ {
			more = false
			for at, longer := 10, true; longer; at += step {
				longer = false
				fault := tpmtest.Fault{Skip: skip, Executed: true, Answer: func(real []byte) []byte {
					if at >= len(real) {
						return real
					}
					longer = true
					damaged++
					real = bytes.Clone(real)
					real[at] ^= 1
					return real
				}}
				fired, err := damage(t, sim, fault, whole)
				more = more || fired
				if err != nil {
					failed++
				}
				if t.Failed() {
					t.Fatalf("command %d, octet %d: %v", skip, at, err)
				}
			}
		}
	}
	t.Logf("%d answers were damaged, %d times the caller saw it", damaged, failed)
	if damaged < 200 {
		t.Errorf("only %d answers were damaged", damaged)
	}
}

// damage runs through a key's life with a fault, and looks at what is left.
func damage(t *testing.T, sim *tpmtest.Sim, fault tpmtest.Fault, whole bool) (fired bool, err error) {
	r := newRig(t, sim, func(c *tpm.Config) { c.Exclusive = true })
	defer r.Close()
	in := r.faults.Add(fault)
	if err = lifeOf(r, "key", whole); err != nil {
		hasSentinel(t, err)
	}
	r.faults.Clear()
	s := r.reopen(t)
	defer s.Close()
	names, listErr := s.List(t.Context())
	if listErr != nil {
		t.Error(listErr)
	}
	if len(names) > 0 {
		sign(t, open(t, s, "key"))
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Error(err)
	}
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("persistent keys %x are left", h)
		sim.Manufacture()
	}
	return in.Fired() > 0, err
}

// lifeOf makes a key and signs. If that is not all, it makes the key persistent,
// opens it, signs and deletes it.
func lifeOf(r *rig, name string, whole bool) error {
	ctx := context.Background()
	key, err := r.CreateKey(ctx, name, tpm.KeyOptions{})
	if err != nil {
		return err
	}
	if _, err := key.Sign(ctx, []byte("input")); err != nil || !whole {
		return err
	}
	if err := r.Persist(ctx, name, handle); err != nil {
		return err
	}
	if key, err = r.Open(ctx, name); err != nil {
		return err
	}
	signature, err := key.Sign(ctx, []byte("input"))
	if err == nil && !verify(key, []byte("input"), signature) {
		return errors.New("a wrong signature")
	}
	if err != nil {
		return err
	}
	return r.Delete(ctx, name)
}
