// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// isMeasuring reports whether times are wanted, and not counts alone.
func isMeasuring() bool { return os.Getenv("BENCH") != "" }

// delays are what a PC's chip takes, in place of swtpm's next to nothing.
var delays = map[tpm2.TPMCC]time.Duration{
	tpm2.TPMCCSign:             200 * time.Millisecond,
	tpm2.TPMCCCreatePrimary:    400 * time.Millisecond,
	tpm2.TPMCCStartAuthSession: 200 * time.Millisecond,
}

// A chip is a TPM that takes its time.
type chip struct{ tpmtest.Device }

func (c chip) Dial(ctx context.Context) (transport.TPMCloser, error) {
	conn, err := c.Device.Dial(ctx)
	return slowConn{conn}, err
}

type slowConn struct{ transport.TPMCloser }

func (c slowConn) Send(command []byte) ([]byte, error) {
	const codeAt = 6
	time.Sleep(delays[tpm2.TPMCC(binary.BigEndian.Uint32(command[codeAt:]))])
	return c.TPMCloser.Send(command)
}

// newChip starts swtpm behind such a delay, with a Store on it.
func newChip(t testing.TB) (*tpm.Store, *tpmtest.Recorder) {
	t.Helper()
	calls := tpmtest.Record(chip{tpmtest.SWTPM(t, tpmtest.SWConfig{})})
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: t.TempDir(), Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store, calls
}

// quantile returns the value below which that part of all lies.
func quantile(of []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}
