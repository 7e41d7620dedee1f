package tpm_test

import (
	"bytes"
	"encoding/binary"
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
