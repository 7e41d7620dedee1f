// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestSignCommand: TPM2_Sign as this package encodes it is what go-tpm makes of
// the same.
func TestSignCommand(t *testing.T) {
	sim := tpmtest.Simulator(t)
	sum256, sum384 := sha256.Sum256([]byte("input")), sha512.Sum384([]byte("input"))
	hashes := map[string]tpm2.TPMIAlgHash{"ES256": tpm2.TPMAlgSHA256, "ES384": tpm2.TPMAlgSHA384}
	for algorithm, digest := range map[string][]byte{"ES256": sum256[:], "ES384": sum384[:]} {
		t.Run(algorithm, func(t *testing.T) {
			r := newRig(t, sim)
			key := create(t, r.Store, "key", tpm.KeyOptions{Algorithm: algorithm})
			r.calls.Reset()
			sign(t, key)
			ours := r.calls.Exchanges()
			handle := tpm2.TPMHandle(binary.BigEndian.Uint32(ours[0].Command[10:]))

			theirs := tpmtest.Record(sim)
			conn, err := theirs.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			public, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(sim)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: handle, Name: public.Name, Auth: tpm2.PasswordAuth(nil)},
				Digest:    tpm2.TPM2BDigest{Buffer: digest},
				InScheme: tpm2.TPMTSigScheme{
					Scheme:  tpm2.TPMAlgECDSA, // the key has none of its own
					Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hashes[algorithm]}),
				},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
			}.Execute(conn)
			if err != nil {
				t.Fatal(err)
			}
			if len(ours) != 1 || !bytes.Equal(ours[0].Command, theirs.Exchanges()[0].Command) {
				t.Errorf("%d commands, the first is\n%x, go-tpm's is\n%x", len(ours), ours[0].Command, theirs.Exchanges()[0].Command)
			}
		})
	}
}

// TestSignResponses: a response to TPM2_Sign with anything out of place is
// garbled, and no signature comes of it.
func TestSignResponses(t *testing.T) {
	sim := tpmtest.Simulator(t)
	// edit changes a response; its length is put right afterwards.
	type edit func(response []byte) []byte
	flip := func(at int, bits byte) edit {
		return func(response []byte) []byte {
			if at < 0 {
				at += len(response)
			}
			response[at] ^= bits
			return response
		}
	}
	edits := map[string]edit{
		"parameters larger than the response": flip(10, 0x80),
		"parameters one octet longer":         flip(13, 1),
		"parameters of no octets": func(response []byte) []byte {
			return slices.Concat(response[:10], make([]byte, 4), response[14+binary.BigEndian.Uint32(response[10:]):])
		},
		"no authorization":        func(response []byte) []byte { return response[:14+binary.BigEndian.Uint32(response[10:])] },
		"authorization cut":       func(response []byte) []byte { return response[:len(response)-1] },
		"more after it":           func(response []byte) []byte { return append(response, 0) },
		"an algorithm like RSA's": flip(15, 0x18^0x14),
		"another hash":            flip(17, 0x0b^0x0c),
		"r longer than the rest":  flip(18, 0x80),
		"s longer than the rest":  flip(18+2+32, 0x80),
		"s one octet shorter":     flip(18+2+32+1, 1),
		"r of 33 octets": func(response []byte) []byte {
			longer := slices.Concat(response[:18], []byte{0, 33, 1}, response[20:])
			longer[13]++
			return longer
		},
	}
	for name, o := range map[string]tpm.KeyOptions{"plain": {}, "PIN": {PIN: true}} {
		r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
		key := create(t, r.Store, name, o)
		sign(t, key)
		for what, change := range edits {
			t.Run(name+"/"+what, func(t *testing.T) { garbled(t, r, key, change) })
		}
		if o.PIN {
			t.Run(name+"/HMAC", func(t *testing.T) { garbled(t, r, key, flip(-1, 1)) })
			t.Run(name+"/r under the HMAC", func(t *testing.T) { garbled(t, r, key, flip(30, 1)) })
		} else {
			t.Run(name+"/an HMAC without session", func(t *testing.T) {
				garbled(t, r, key, func(response []byte) []byte { return append(response[:len(response)-1], 1, 7) })
			})
		}
		r.Close()
	}
}

// garbled changes all responses to TPM2_Sign until Sign gives up, and then sees
// the key sign again.
func garbled(t *testing.T, r *rig, key keystore.Key, change func([]byte) []byte) {
	t.Helper()
	r.calls.Reset()
	in := r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Times: -1, Answer: func(real []byte) []byte {
		changed := change(bytes.Clone(real))
		binary.BigEndian.PutUint32(changed[2:], uint32(len(changed)))
		return changed
	}})
	signature, err := key.Sign(t.Context(), []byte("input"))
	if err == nil {
		t.Fatalf("a signature was handed out: %x", signature)
	}
	if wantError(t, err, keystore.ErrUnavailable); strings.Count(err.Error(), "garbled") != 1 {
		t.Errorf("%q does not say once that the answer was garbled", err)
	}
	// One new try; with a PIN, which is asked for again, another one.
	if n := in.Fired(); n < 2 || n > 3 {
		t.Errorf("TPM2_Sign was answered %d times, want 2 or 3", n)
	}
	r.faults.Clear()
	sign(t, key)
}

// TestSignAllocations: a signature costs this side less than half of what go-tpm
// alone takes for its command. Unlike times, allocations can be counted.
func TestSignAllocations(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	bare := bareSigner(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	sign(t, key)
	theirs := testing.AllocsPerRun(20, bare)
	ours := testing.AllocsPerRun(20, func() {
		if _, err := key.Sign(t.Context(), []byte("input")); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%.0f allocations, go-tpm %.0f", ours, theirs)
	if ours > theirs/2 {
		t.Errorf("%.0f allocations, go-tpm alone %.0f", ours, theirs)
	}
}
