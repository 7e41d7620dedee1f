// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/elliptic"
	"encoding/hex"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// pcrsOf are the reference values for what a firmware measures.
func pcrsOf(f *factory.Firmware, pcrs ...int) object {
	values := object{}
	for _, pcr := range pcrs {
		values[strconv.Itoa(pcr)] = hex.EncodeToString(factory.Values(f)[pcr])
	}
	return values
}

// TestPolicy: the evidence is sound, and the reference values decide.
func TestPolicy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	w := newWorld(t, tpmtest.Dial(t, sim), nil)
	chain := w.enrol()

	good, off := w.firmware(firmwareV2, true), w.firmware(firmwareV2, false)
	old, unknown := w.firmware("Gateway firmware 1.0", true), w.firmware("Gateway firmware 2.1-rc1", true)
	foreign := w.firmware(firmwareV2, true)
	signer := newKey(t, elliptic.P256())
	foreign.Authority = certificate(t, nil, signer, signer)

	release := func(verdict string, pcrs object) object {
		return object{"swname": "gateway-os", "swversion": "2.0", "verdict": verdict, "pcrs": pcrs}
	}
	with := func(o object, member string, value any) object {
		o = clone(o)
		o[member] = value
		return o
	}
	byLog := w.reference
	byValues := with(with(byLog, "secure_boot_authorities", nil), "software", []object{
		with(release("affirming", pcrsOf(good, 0, 4, 7)), "oemboot", true),
		with(release("affirming", pcrsOf(off, 4, 7)), "oemboot", false),
	})
	lenient := with(with(byLog, "attest_unknown_software", true), "attest_without_secure_boot", true)

	cases := map[string]struct {
		firmware  *factory.Firmware
		reference object
		refused   string // why; "": attested
		claims    object
		status    string
		vector    object
	}{
		"good, by values": {good, byValues, "", object{"swversion": []any{"2.0"}, "oemboot": true}, "affirming", object{"configuration": 2.0, "executables": 3.0}},
		"Secure Boot not looked at": {off, with(with(byLog, "secure_boot_authorities", nil), "software", []object{release("affirming", pcrsOf(off, 4))}),
			"", object{"oemboot": nil}, "affirming", object{"configuration": nil, "executables": 3.0}},
		"unknown loader":                  {unknown, byLog, "match no reference values", nil, "", nil},
		"PCR 7 is not a reference value":  {foreign, byValues, "match no reference values", nil, "", nil},
		"Secure Boot off, by log":         {off, byLog, "Secure Boot: is off", nil, "", nil},
		"Secure Boot off, by values":      {off, byValues, "Secure Boot: says the reference value", nil, "", nil},
		"loader of a foreign authority":   {foreign, byLog, "unknown authority", nil, "", nil},
		"version below minimum":           {old, with(byLog, "software", []object{release("refused", pcrsOf(old, 4))}), "gateway-os 2.0 is refused", nil, "", nil},
		"first release that fits decides": {good, with(byLog, "software", []object{release("refused", pcrsOf(good, 0)), release("affirming", pcrsOf(good, 4))}), "is refused", nil, "", nil},

		"unknown loader, lenient":  {unknown, lenient, "", object{"swname": nil, "swversion": nil, "oemboot": true}, "contraindicated", object{"configuration": 2.0, "executables": 33.0}},
		"Secure Boot off, lenient": {off, lenient, "", object{"swversion": []any{"2.0"}, "oemboot": false}, "warning", object{"configuration": 32.0, "executables": 3.0}},
		"both, lenient":            {w.firmware("x", false), lenient, "", object{"swname": nil, "oemboot": false}, "contraindicated", object{"configuration": 32.0, "executables": 33.0}},
		"warning":                  {good, with(byLog, "software", []object{release("warning", pcrsOf(good, 4))}), "", object{"swversion": []any{"2.0"}}, "warning", object{"executables": 32.0}},
		"contraindicated":          {good, with(byLog, "software", []object{release("contraindicated", pcrsOf(good, 4))}), "", object{"swversion": []any{"2.0"}}, "contraindicated", object{"executables": 96.0}},
	}
	decided := 0
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w.t, w.d.t = t, t
			sim.Reset()
			w.d.boot(tc.firmware)
			w.reference = tc.reference
			w.start()
			k := w.instanceKey()
			defer k.flush()
			answer := w.send(w.attempt(k, chain).request())
			decided++
			if tc.refused != "" {
				w.wantRefusal(answer, http.StatusForbidden, "policy_violation", tc.refused)
				return
			}
			_, claims := w.open(w.wantAttestation(answer))
			for claim, want := range tc.claims {
				if !reflect.DeepEqual(claims[claim], want) {
					t.Errorf("%s is %v, want %v", claim, claims[claim], want)
				}
			}
			platform := claims["submods"].(object)["platform"].(object)
			if platform["ear_status"] != tc.status {
				t.Errorf("ear_status %v, want %v", platform["ear_status"], tc.status)
			}
			for name, want := range tc.vector {
				if got := platform["ear_trustworthiness_vector"].(object)[name]; got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
		})
	}
	if decided != 14 {
		t.Errorf("%d cases, want 14", decided)
	}
}

// TestRegistry: what the registry knows of a device, and what the device says.
func TestRegistry(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) { w.reference = nil })
	k := w.instanceKey()
	defer k.flush()

	// Whatever the device says of itself, in either request, is not repeated.
	enrolment := w.d.enrolment()
	enrolment["tpmInfo"] = object{"model": "Gateway X9", "firmwareVersion": "9.9"}
	answer := body(t, w.postJSON("/tpm/attest", enrolment))
	secret, err := w.d.activate(w.d.akKey, w.bytes(answer, "credential"), w.bytes(answer, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	w.postJSON("/tpm/secret", object{"session": answer["session"], "secret": secret, "tpmInfo": object{"model": "Gateway X9"}})
	chain := w.enrol()
	r := w.attempt(k, chain).request()
	for claim, value := range map[string]any{"hwmodel": "R2F0ZXdheSBYOQ", "hwversion": []string{"9"}, "swversion": "9.9", "oemid": 9, "oemboot": true, "tpmInfo": object{"model": "X9"}} {
		r.claims[claim] = value
		r.claims["evidence"].(object)[claim] = value
	}
	_, claims := w.open(w.wantAttestation(w.send(r)))
	if claims["hwmodel"] != "R2F0ZXdheSBYMQ" || claims["oemid"] != 32473.0 || !reflect.DeepEqual(claims["hwversion"], []any{"B"}) ||
		claims["swversion"] != nil || claims["oemboot"] != nil || claims["submods"] != nil {
		t.Errorf("claims %v", claims)
	}
	for _, lie := range []string{"9.9", "Gateway X9", "R2F0ZXdheSBYOQ", w.ek} {
		if strings.Contains(string(encodeJSON(t, claims)), lie) {
			t.Errorf("the attestation has %q", lie)
		}
	}

	// A device that nobody listed.
	w.registry = object{"attest_unlisted_devices": true}
	w.start()
	_, claims = w.open(w.wantAttestation(w.send(w.attempt(k, chain).request())))
	if claims["hwmodel"] != nil || claims["oemid"] != nil || claims["eat_profile"] == nil {
		t.Errorf("unlisted: claims %v", claims)
	}
	w.registry = nil
	w.start()
	_, claims = w.open(w.wantAttestation(w.send(w.attempt(k, chain).request())))
	if claims["hwmodel"] != nil {
		t.Errorf("no registry: claims %v", claims)
	}
}
