// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
)

// reported runs the quickstart with -report FILE.json and reads that.
func reported(t *testing.T, args ...string) (status int, d report.Document) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "run.json")
	status, _, _ = quickstart(t, append(args, "-report", name)...)
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if d, err = report.Read(file); err != nil {
		t.Fatal(err)
	}
	return status, d
}

func stepsOf(act report.Act) (ids []report.StepID) {
	for _, s := range act.Steps {
		ids = append(ids, s.ID)
	}
	return ids
}

func stepOf(t *testing.T, act report.Act, id report.StepID) report.Step {
	t.Helper()
	for _, s := range act.Steps {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("step %s did not run", id)
	return report.Step{}
}

var allSteps = []report.StepID{"a", "metadata", "b", "c", "d", "1", "2", "3", "4", "5"}

// TestReport: the report has all steps, the evidence, and both verdicts line by line.
func TestReport(t *testing.T) {
	if !storeflag.SimulatorBuiltIn {
		t.Skip(storeflag.ErrNoSimulator)
	}
	status, d := reported(t, "-store", "simulator")
	if status != 0 || len(d.Acts) != 1 {
		t.Fatalf("status %d, %d acts", status, len(d.Acts))
	}
	act := d.Acts[0]
	if ids := stepsOf(act); !slices.Equal(ids, allSteps) || act.Failure != nil {
		t.Errorf("steps %s, failure %+v", ids, act.Failure)
	}
	sent := stepOf(t, act, report.SendEvidence)
	evidence := sent.Messages[len(sent.Messages)-1].Evidence
	if evidence == nil || len(evidence.PCRs) != 3 || len(evidence.Events) != 11 || len(evidence.Parts) != 2 || sent.Requests != 4 || sent.TPM <= 0 || sent.Network <= 0 {
		t.Errorf("step b: %+v", sent)
	}
	for id, want := range map[report.StepID]int{report.VerifyEvidence: 4, report.Answer: 6} {
		lines := stepOf(t, act, id).Verdict
		if len(lines) != want {
			t.Errorf("step %s: %d lines, want %d: %+v", id, len(lines), want, lines)
		}
		for _, line := range lines {
			if line.Result == report.Fail {
				t.Errorf("step %s: %+v", id, line)
			}
		}
	}
}

// TestReportOfSoftware: the same with a key in software, of which there is no evidence.
func TestReportOfSoftware(t *testing.T) {
	status, d := reported(t, "-store", "soft")
	if status != 0 || len(d.Acts) != 1 || !d.Acts[0].Software || !slices.Equal(stepsOf(d.Acts[0]), allSteps) {
		t.Errorf("status %d, %+v", status, d)
	}
}

// TestReportOfStory: an act of the story is one of the report, and what was refused says
// by which rule.
func TestReportOfStory(t *testing.T) {
	if !storeflag.SimulatorBuiltIn {
		t.Skip(storeflag.ErrNoSimulator)
	}
	status, d := reported(t, "-story", "firmware")
	if status != 0 || len(d.Acts) != 6 {
		t.Fatalf("status %d, %d acts", status, len(d.Acts))
	}
	for i, isRefused := range []bool{true, false, true, true, true, false} {
		act := d.Acts[i]
		if (act.Failure != nil) != isRefused || isRefused && act.Failure.Step != report.Answer {
			t.Errorf("act %d: %+v", i+1, act.Failure)
		}
		if stepOf(t, act, report.SendEvidence).Requests == 0 {
			t.Errorf("act %d: the attester's messages were not seen", i+1)
		}
		failed := slices.ContainsFunc(stepOf(t, act, report.Answer).Verdict, func(v report.Verdict) bool { return v.Result == report.Fail })
		if failed != isRefused {
			t.Errorf("act %d: %+v", i+1, stepOf(t, act, report.Answer).Verdict)
		}
	}
}

// TestReportOfFailure: a run that has failed is reported, too, and a file that cannot be
// written is an error before anything is done.
func TestReportOfFailure(t *testing.T) {
	status, d := reported(t, "-store", "tcp:127.0.0.1:1")
	if status != 1 || len(d.Acts) != 1 || d.Acts[0].Failure == nil || d.Acts[0].Failure.Step != report.CreateKey {
		t.Errorf("status %d, %+v", status, d)
	}
	dir := t.TempDir()
	for _, name := range []string{dir, filepath.Join(dir, "none", "run.html")} {
		if status, stdout, stderr := quickstart(t, "-store", "soft", "-report", name); status != 2 || stdout != "" || !strings.Contains(stderr, "-report") {
			t.Errorf("%s: status %d, %q, %q", name, status, stdout, stderr)
		}
	}
}

// TestFigure: the figure of the README is that of a run. "make figure" draws it.
func TestFigure(t *testing.T) {
	if !storeflag.SimulatorBuiltIn {
		t.Skip(storeflag.ErrNoSimulator)
	}
	name := filepath.Join(t.TempDir(), "figure.svg")
	if status, _, stderr := quickstart(t, "-store", "simulator", "-report", name); status != 0 {
		t.Fatalf("status %d, %s", status, stderr)
	}
	drawn, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("figure.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(drawn, kept) {
		t.Errorf("figure.svg is not what a run draws: use \"make figure\"\n%s", drawn)
	}
}
