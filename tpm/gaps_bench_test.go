// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// BenchmarkGaps is the time of a signature by how long after the last one it is, on a
// TPM that takes 200 ms for one, as chips do: swtpm, whose answers come later. It
// sleeps in between, ten minutes at the longest. TestPINUses holds the same in
// commands.
//
//	go test ./tpm -run '^$' -bench Gaps -benchtime 3x -timeout 2h
func BenchmarkGaps(b *testing.B) {
	const unit = 200 * time.Millisecond
	for _, gap := range []time.Duration{6 * time.Second, 25 * time.Second, time.Minute, 10 * time.Minute} {
		for _, o := range []tpm.KeyOptions{{}, {PIN: true}} {
			b.Run(fmt.Sprintf("%v/PIN=%t", gap, o.PIN), func(b *testing.B) {
				faults := tpmtest.Inject(b, tpmtest.SWTPM(b, tpmtest.SWConfig{}))
				config := tpm.Config{Dial: faults.Dial, Dir: filepath.Join(b.TempDir(), "keys")}
				withPIN("1234")(&config)
				s, err := tpm.Open(b.Context(), config)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				for code, units := range slow {
					faults.Add(tpmtest.Fault{Command: code, Executed: true, Times: -1, Answer: func(real []byte) []byte {
						time.Sleep(time.Duration(units * float64(unit)))
						return real
					}})
				}
				key, err := s.CreateKey(b.Context(), "key", o)
				if err != nil {
					b.Fatal(err)
				}
				sign := func() {
					if _, err := key.Sign(b.Context(), []byte("input")); err != nil {
						b.Fatal(err)
					}
				}
				sign()
				time.Sleep(gap)
				sign() // by now it is known how rare uses are
				for b.Loop() {
					b.StopTimer()
					time.Sleep(gap)
					b.StartTimer()
					sign()
				}
			})
		}
	}
}
