// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/instancekey/instancekey/client/report"
)

// TestReport: there is a report after the first call, whether it failed or not, and at
// the end, and it is that of all since the start.
func TestReport(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	w.network(false)
	name := filepath.Join(t.TempDir(), "run.json")
	read := func() report.Act {
		t.Helper()
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		d, err := report.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		return d.Acts[0]
	}
	count := func(act report.Act, id report.StepID) int {
		for _, s := range act.Steps {
			if s.ID == id {
				return s.Count
			}
		}
		return 0
	}
	d := w.start(append(w.args(), "-report", name)...)
	d.fails(1)
	if act := read(); act.Failure == nil || act.Failure.Step != report.Metadata || count(act, report.CreateKey) != 1 {
		t.Errorf("%+v", act)
	}
	w.network(true)
	d.calls()
	d.calls()
	d.terminates()
	act := read()
	for id, want := range map[report.StepID]int{report.Attestation: 1, report.Answer: 1, report.ResourceCall: 2} {
		if got := count(act, id); got != want {
			t.Errorf("step %s ran %d times, want %d", id, got, want)
		}
	}
	if act.Failure == nil || act.Failure.Count != 1 || !act.Software {
		t.Errorf("%+v", act.Failure)
	}
}
