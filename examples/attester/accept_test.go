// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestAttest: the whole protocol with a good device.
func TestAttest(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	a := w.attempt(k, chain)
	if want := []int{0, 4, 7}; !reflect.DeepEqual(a.pcrs, want) {
		t.Errorf("asked for PCRs %v, want %v", a.pcrs, want)
	}
	_, claims := w.open(w.wantAttestation(w.send(a.request())))
	for _, claim := range []string{"sub", "iat", "exp", "cnf"} {
		if claims[claim] == nil {
			t.Errorf("no %s", claim)
		}
		delete(claims, claim)
	}
	want := object{
		"eat_profile":     "https://github.com/instancekey/instancekey#client-attestation-1",
		"tpm_endorsement": "certificate",
		"oemid":           32473.0,
		"hwmodel":         "R2F0ZXdheSBYMQ",
		"hwversion":       []any{"B"},
		"swname":          "gateway-os",
		"swversion":       []any{"2.0"},
		"oemboot":         true,
		"measres":         []any{[]any{"tpm-measured-boot", []any{[]any{"software", "success"}, []any{"secure-boot", "success"}}}},
		"submods": object{"platform": object{
			"ear_status": "affirming",
			"ear_trustworthiness_vector": object{
				"instance-identity": 2.0, "hardware": 2.0, "storage-opaque": 2.0, "configuration": 2.0, "executables": 3.0,
			},
			"ear_appraisal_policy_ids": []any{"tag:example.com,2026:gateway"},
		}},
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims\n%v, want\n%v", claims, want)
	}
	if log := w.lastRecord(); log["ek"] != w.ek || log["firmware_version"] != firmwareV2 || log["msg"] != "client attestation issued" {
		t.Errorf("logged %v", log)
	}
	if strings.Contains(string(encodeJSON(t, claims)), w.ek) {
		t.Error("the attestation identifies the device")
	}
}
