// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// TestAllocations bounds what a warm signature allocates, with a context that can be
// cancelled, and without what the simulator itself allocates.
func TestAllocations(t *testing.T) {
	sim := tpmtest.Simulator(t)
	readClock := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x81}
	ofSimulator := testing.AllocsPerRun(100, func() { _, _ = sim.Send(readClock) })
	for _, tt := range []struct {
		options tpm.KeyOptions
		most    float64
	}{
		{tpm.KeyOptions{}, 30},
		{tpm.KeyOptions{Algorithm: "ES384"}, 30},
		{tpm.KeyOptions{PIN: true}, 80},
	} {
		r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Dial = sim.Dial })
		key := create(t, r.Store, "key", tt.options)
		sign(t, key)
		ctx, cancel := context.WithCancel(t.Context())
		got := testing.AllocsPerRun(200, func() {
			if _, err := key.Sign(ctx, []byte("input")); err != nil {
				t.Error(err)
			}
		})
		cancel()
		r.Close()
		if got -= ofSimulator; got > tt.most {
			t.Errorf("%+v: %v allocations for a signature, want at most %v", tt.options, got, tt.most)
		} else {
			t.Logf("%+v: %v allocations for a signature", tt.options, got)
		}
	}
}

// BenchmarkEncode is what a signature costs the processor outside of the TPM, which
// answers at once here. A context that can be cancelled costs a change of goroutine
// there and back.
func BenchmarkEncode(b *testing.B) {
	sim := tpmtest.Simulator(b)
	for _, tt := range []struct {
		name string
		ctx  context.Context
	}{{"plain", context.Background()}, {"cancellable", b.Context()}} {
		b.Run(tt.name, func(b *testing.B) {
			s, err := tpm.Open(b.Context(), tpm.Config{TPM: &instantTPM{Sim: sim}, Dir: filepath.Join(b.TempDir(), "keys")})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			key, err := s.CreateKey(b.Context(), "key", tpm.KeyOptions{})
			if err != nil {
				b.Fatal(err)
			}
			warm(b, key)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Sign(tt.ctx, []byte("input")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// instantTPM gives the answer to TPM2_Sign again if it gets the same once more.
type instantTPM struct {
	*tpmtest.Sim
	command, response []byte
}

func (i *instantTPM) Send(command []byte) ([]byte, error) {
	if bytes.Equal(command, i.command) {
		return i.response, nil
	}
	response, err := i.Sim.Send(command)
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == ccSign {
		i.command, i.response = bytes.Clone(command), response
	}
	return response, err
}
