// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

// at4 is what is measured into PCR 4.
func at4(kind uint32, text string) factory.Event {
	return factory.Event{PCR: 4, Type: kind, Data: []byte(text)}
}

const bootApplication = 0x80000003

func attempt(text string) factory.Event {
	return at4(efiAction, text+" EFI Application from Boot Option")
}

// TestDifferences: a boot that is none of the known ones is refused with the PCR or
// the event that differs from the nearest, and boot entries that were tried first,
// and started nothing, make no difference.
func TestDifferences(t *testing.T) {
	hexOf := func(text string) string { return hex.EncodeToString(digestOf([]byte(text))) }
	zeros := string(make([]byte, 4))
	calling, returning := attempt("Calling"), attempt("Returning from")
	sep, loader, kernel := at4(separator, zeros), at4(bootApplication, "loader"), at4(bootApplication, "kernel")
	values := valuesOf([]factory.Event{{PCR: 0, Type: 8, Data: []byte("firmware")}}, 0)
	reference := fmt.Sprintf(`{"policy": "p", "pcrs": [0, 4], "software": [
{"swname": "old", "swversion": "1", "verdict": "refused", "pcrs": {"0": %q}, "first_events": {"4": [%q, %q]}},
{"swname": "os", "swversion": "2", "verdict": "affirming", "pcrs": {"0": %q}, "first_events": {"4": [%q, %q, %q, %q]}}]}`,
		hexOf("old firmware"), hexOf(zeros), hexOf("old loader"),
		hex.EncodeToString(values[0]), hex.EncodeToString(digestOf(calling.Data)), hexOf(zeros), hexOf("loader"), hexOf("kernel"))
	parsed, err := evidence.ParseReference([]byte(reference))
	if err != nil {
		t.Fatal(err)
	}
	type events = []factory.Event
	good := factory.Event{PCR: 0, Type: 8, Data: []byte("firmware")}
	cases := map[string]struct {
		events events
		want   string // "": it is release 2
	}{
		"as in the file":               {events{good, calling, sep, loader, kernel}, ""},
		"no attempt is logged":         {events{good, sep, loader, kernel}, ""},
		"an entry was tried first":     {events{good, calling, returning, calling, sep, loader, kernel}, ""},
		"three were":                   {events{good, calling, sep, returning, calling, returning, calling, loader, returning, calling, kernel}, ""},
		"more is measured later":       {events{good, calling, sep, loader, kernel, at4(ipl, "more")}, ""},
		"another loader":               {events{good, calling, sep, at4(bootApplication, "evil"), kernel}, "os 2 (line 3): event 3 of PCR 4 (EV_EFI_BOOT_SERVICES_APPLICATION) is " + hexOf("evil") + ", not " + hexOf("loader")},
		"an entry that was started":    {events{good, calling, at4(bootApplication, "stick"), returning, calling, sep, loader, kernel}, "event 2 of PCR 4 (EV_EFI_BOOT_SERVICES_APPLICATION) is " + hexOf("stick")},
		"the loader comes after":       {events{good, sep, at4(bootApplication, "evil"), loader, kernel}, "event 2 of PCR 4"},
		"no kernel":                    {events{good, calling, sep, loader}, "PCR 4 has no event 4, which is to be " + hexOf("kernel")},
		"nothing":                      {events{good}, "PCR 4 has no event 1"},
		"other firmware":               {events{{PCR: 0, Type: 8, Data: []byte("new firmware")}, sep, loader, kernel}, "os 2 (line 3): PCR 0 is "},
		"other firmware and loader":    {events{{PCR: 0, Type: 8, Data: []byte("new firmware")}, sep, at4(bootApplication, "evil")}, "; event 2 of PCR 4"},
		"nearest is the first release": {events{{PCR: 0, Type: 8, Data: []byte("x")}, sep, at4(bootApplication, "old loader")}, "old 1 (line 2): PCR 0 is "},
	}
	for name, tc := range cases {
		got := evidence.Judge(t, parsed, factory.Log(tc.events), valuesOf(tc.events, 0, 4))
		if tc.want == "" && got != "os 2" || tc.want != "" && !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s, want %q", name, got, tc.want)
		}
	}
	if len(cases) != 13 {
		t.Errorf("%d cases, want 13", len(cases))
	}
}

// TestLogOfUserSpace: PCRs that the operating system extends may be judged by their
// value, beside a boot log that says nothing of them, or not all. Those of the
// firmware are explained by it.
func TestLogOfUserSpace(t *testing.T) {
	firmware := []factory.Event{{PCR: 0, Type: 8, Data: []byte("firmware")}, at4(bootApplication, "loader")}
	later := []factory.Event{{PCR: 10, Type: ipl, Data: []byte("IMA")}, {PCR: 11, Type: ipl, Data: []byte("enter-initrd")}}
	values := valuesOf(append(firmware, later...), 0, 4, 10, 11)
	parse := func(pcrs, more string) *evidence.Reference {
		t.Helper()
		parsed, err := evidence.ParseReference(fmt.Appendf(nil, `{"policy": "p", "pcrs": [%s], "software": [
{"swname": "os", "swversion": "2", "verdict": "affirming", "pcrs": {"11": "%x"}, "first_events": {"4": ["%x"]%s}}]}`, pcrs, values[11], digestOf([]byte("loader")), more))
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	if got := evidence.Judge(t, parse("0, 4, 10, 11", ""), factory.Log(firmware), values); got != "os 2" {
		t.Error(got)
	}
	// The firmware's own, and what is judged by events.
	changed := valuesOf(append(firmware, factory.Event{PCR: 0, Type: ipl, Data: []byte("more")}), 0)
	values[0], changed[0] = changed[0], values[0]
	if got := evidence.Judge(t, parse("0, 4, 10, 11", ""), factory.Log(firmware), values); !strings.Contains(got, "does not add up to what was quoted of the PCRs [0]") {
		t.Error(got)
	}
	values[0] = changed[0]
	values[8] = digestOf([]byte("of GRUB"))
	if got := evidence.Judge(t, parse("0, 4, 8, 11", `, "8": ["`+hex.EncodeToString(digestOf(nil))+`"]`), factory.Log(firmware), values); !strings.Contains(got, "does not say what was measured into PCR 8") {
		t.Error(got)
	}
}
