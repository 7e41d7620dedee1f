// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestLaterLogs: the logs of what goes on to be measured are read when the PCRs were
// quoted, so that they have all that the quote covers.
func TestLaterLogs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	var r *rig
	var read []string
	log := func(name string, quotes int) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) {
			if n := r.calls.Count(ccQuote); n != quotes {
				t.Errorf("%s is read after %d quotes", name, n)
			}
			read = append(read, name)
			return []byte(name), nil
		}
	}
	r = newRig(t, sim, func(c *tpm.Config) {
		c.EventLog, c.UserspaceLog, c.IMALog = log("firmware", 0), log("userspace", 1), log("IMA", 1)
	})
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	evidence := prove(t, key, 10, 11)
	if string(evidence.EventLog) != "firmware" || string(evidence.UserspaceLog) != "userspace" || string(evidence.IMALog) != "IMA" || len(read) != 3 {
		t.Errorf("%q: logs %q, %q, %q", read, evidence.EventLog, evidence.UserspaceLog, evidence.IMALog)
	}
	if none := prove(t, key); none.UserspaceLog != nil || none.IMALog != nil || len(read) != 3 {
		t.Errorf("without PCRs: %q", read)
	}
}

// TestLaterLogsFail: as those of the firmware do.
func TestLaterLogsFail(t *testing.T) {
	sim := tpmtest.Simulator(t)
	cause := errors.New("cause")
	fail := func(context.Context) ([]byte, error) { return nil, cause }
	large := func(context.Context) ([]byte, error) { return make([]byte, 1<<20+1), nil }
	for name, configure := range map[string]func(*tpm.Config){
		"userspace":            func(c *tpm.Config) { c.UserspaceLog = fail },
		"IMA":                  func(c *tpm.Config) { c.IMALog = fail },
		"userspace, too large": func(c *tpm.Config) { c.UserspaceLog = large },
		"IMA, too large":       func(c *tpm.Config) { c.IMALog = large },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim, configure)
			defer r.Close()
			key := create(t, r.Store, "key", tpm.KeyOptions{}).(keystore.AttestableKey)
			_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: make([]byte, 32), PCRs: []int{10}})
			wantError(t, err, keystore.ErrUnavailable)
			sign(t, key)
		})
	}
}
