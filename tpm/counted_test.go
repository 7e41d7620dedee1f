// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

var errLost = errors.New("lost")

// waysToLose are what may become of a command that the TPM may have counted.
var waysToLose = map[string]tpmtest.Fault{
	"answer lost":  {Executed: true, Lost: true, Err: errLost},
	"answer torn":  {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
	"command lost": {Lost: true, Err: errLost},
}

// TestLostAnswerIsNoSecondTry: a wrong PIN whose answer was lost is not tried again, since
// the TPM would count that, too. A right one is, as everything that is lost.
func TestLostAnswerIsNoSecondTry(t *testing.T) {
	const right, wrong = "1234", "4321"
	sim := tpmtest.Simulator(t)
	manager := tpmtest.NewResourceManager(t, sim) // what is lost with a connection is flushed
	sign := func(ctx context.Context, key keystore.Key) error {
		_, err := key.Sign(ctx, []byte("message"))
		return err
	}
	prove := func(ctx context.Context, key keystore.Key) error {
		_, err := key.(keystore.AttestableKey).Evidence(ctx, keystore.EvidenceRequest{Binding: make([]byte, 32)})
		return err
	}
	for wayName, way := range waysToLose {
		for _, kind := range []struct {
			name    string
			options *tpm.KeyOptions // nil: another program's key
			foreign foreignKey
			command tpm2.TPMCC
			use     func(context.Context, keystore.Key) error
		}{
			{"PIN", &tpm.KeyOptions{PIN: true}, foreignKey{}, ccSign, sign},
			{"PIN and PCRs", &tpm.KeyOptions{PIN: true, PCRs: []int{7}}, foreignKey{}, ccSign, sign},
			{"evidence", &tpm.KeyOptions{PIN: true}, foreignKey{}, tpm2.TPMCCCertify, prove},
			{"foreign", nil, foreignKey{password: right}, ccSign, sign},
			{"foreign without", nil, foreignKey{emptyAuth: true}, ccSign, sign},
		} {
			for _, pin := range []string{right, wrong} {
				for _, before := range []int{0, 1} {
					t.Run(fmt.Sprintf("%s, %s, PIN %s, %d counted", kind.name, wayName, pin, before), func(t *testing.T) {
						forgive(t, sim)
						r := newRig(t, manager, withPIN(right))
						if kind.options != nil {
							create(t, r.Store, "key", *kind.options)
						} else {
							put(t, r, "key", kind.foreign.file(t, sim))
						}
						countTries(t, manager, before)
						config := r.config
						withPIN(pin)(&config)
						s, err := tpm.Open(t.Context(), config)
						if err != nil {
							t.Fatal(err)
						}
						defer s.Close()
						key := open(t, s, "key")
						r.calls.Reset()
						fault := way
						fault.Command = kind.command
						r.faults.Add(fault)
						err = kind.use(t.Context(), key)

						isRight := pin == right || kind.name == "foreign without"
						wantLost(t, r, sim, fault, isRight, before, err)
						// With whatever follows, it works again.
						if isRight {
							if err := kind.use(t.Context(), key); err != nil {
								t.Errorf("the next time: %v", err)
							}
							fault.Times = 1
							countTries(t, manager, 1)
							r.faults.Add(fault)
							if err := kind.use(t.Context(), key); err != nil {
								t.Errorf("a PIN that the TPM has taken is not tried again: %v", err)
							}
						}
						forgive(t, sim)
					})
				}
			}
		}
	}
}

// wantLost checks how often a command was sent whose first answer the fault has lost, what
// came of it, and what the TPM has counted that had counted some before.
func wantLost(t *testing.T, r *rig, sim *tpmtest.Sim, fault tpmtest.Fault, isRight bool, before int, err error) {
	t.Helper()
	tries := 1
	if before == 0 && (isRight || !fault.Executed) {
		tries = 2
	}
	if n := r.calls.Count(fault.Command); n != tries {
		t.Errorf("it was sent %d times, want %d", n, tries)
	}
	if isRight && before == 0 {
		if err != nil {
			t.Errorf("it is right: %v", err)
		}
	} else { // nobody knows
		wantError(t, err, keystore.ErrAuth)
	}
	counted := before
	if !isRight && (fault.Executed || before == 0) {
		counted++
	}
	if n := wrongTries(t, sim); n != counted {
		t.Errorf("%d wrong tries are counted, want %d", n, counted)
	}
}

// countTries makes the TPM count wrong tries, with a key of nobody's.
func countTries(t *testing.T, device tpmtest.Device, n int) {
	t.Helper()
	for range n {
		pin := "1"
		config := tpm.Config{Dial: device.Dial, Dir: t.TempDir(), PIN: func(context.Context, string) ([]byte, error) { return []byte(pin), nil }}
		if err := os.Chmod(config.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := tpm.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		key := create(t, s, "key", tpm.KeyOptions{PIN: true})
		pin = "2"
		if _, err := key.Sign(t.Context(), []byte("message")); !errors.Is(err, keystore.ErrAuth) {
			t.Fatal(err)
		}
		s.Close()
	}
}
