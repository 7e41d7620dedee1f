// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/elliptic"
	"net/http"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectSuspend: between the two statements the device has neither booted nor
// slept, after which something else may run (TPM 2.0 Library, part 1, "Startup").
func TestRejectSuspend(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	f := w.newForger(nil)
	software := newKey(t, elliptic.P256())
	for name, tc := range map[string]struct {
		certified, quoted tpm2.TPMSClockInfo
		refused           bool
	}{
		"same":            {tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 5}, tpm2.TPMSClockInfo{Clock: 9, ResetCount: 3, RestartCount: 5}, false},
		"booted":          {tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 5}, tpm2.TPMSClockInfo{ResetCount: 4, RestartCount: 5}, true},
		"slept":           {tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 5}, tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 6}, true},
		"quoted earlier":  {tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 5}, tpm2.TPMSClockInfo{ResetCount: 3, RestartCount: 4}, true},
		"first, and then": {tpm2.TPMSClockInfo{}, tpm2.TPMSClockInfo{RestartCount: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.attempt(k, chain)
			a.signWith(software)
			g := &forgery{key: software, area: areaOf(t, &software.PublicKey)}
			g.attest = attestFor(t, g.area, a.binding)
			g.attest.ClockInfo = tc.certified
			a.forge(f, g)
			quoted, err := tpm2.Unmarshal[tpm2.TPMSAttest](a.proof.quotes[0]["rawQuote"].([]byte))
			if err != nil {
				t.Fatal(err)
			}
			quoted.ExtraData.Buffer, quoted.ClockInfo = a.binding, tc.quoted
			text := tpm2.Marshal(*quoted)
			a.proof.quotes[0]["rawQuote"], a.proof.quotes[0]["rawSignature"] = text, f.sign(text)
			answer := w.send(a.request())
			if tc.refused {
				w.wantRefusal(answer, http.StatusBadRequest, "invalid_evidence", "from another boot")
			} else {
				w.wantAttestation(answer)
			}
		})
	}
}
