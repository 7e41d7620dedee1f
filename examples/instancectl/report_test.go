// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client/report"
)

// readReport reads the JSON of a run.
func readReport(t *testing.T, name string) report.Act {
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
	if len(d.Acts) != 1 {
		t.Fatalf("%d acts", len(d.Acts))
	}
	return d.Acts[0]
}

func stepIDs(act report.Act) string {
	var ids []string
	for _, s := range act.Steps {
		ids = append(ids, string(s.ID))
	}
	return strings.Join(ids, " ")
}

// TestReport: token and attest report what ran, also what failed, and the page is made
// again from the JSON.
func TestReport(t *testing.T) {
	s := startServers(t, nil)
	attest := []string{"attest", "-client-id", clientID, "-name", "k"}
	for name, tt := range map[string]struct {
		args   []string
		steps  string
		status int
		failed report.StepID
	}{
		"token":             {s.token("-attester", s.AttesterURL), "a metadata b c d 1 2 3 4 5", 0, ""},
		"self":              {s.token("-self", s.self), "a metadata d 1 2 3 4 5", 0, ""},
		"many":              {s.token("-self", s.self, "-n", "30", "-c", "5"), "a metadata d 1 2 3 4 5", 0, ""},
		"refused":           {s.token("-self", s.self, "-scope", "admin"), "a metadata d 1 2 3 4 5", 1, "5"},
		"nobody there":      {s.token("-self", s.self, "-issuer", "http://127.0.0.1:1"), "a metadata", 1, "metadata"},
		"attest":            {append(attest, "-attester", s.AttesterURL), "a b c d", 0, ""},
		"attest itself":     {append(attest, "-self", s.self), "a d", 0, ""},
		"attest for issuer": {[]string{"attest", "-client-id", clientID, "-issuer", s.Issuer, "-attester", s.AttesterURL}, "a b c d", 0, ""},
		"attest refused":    {[]string{"attest", "-client-id", "other", "-name", "k", "-attester", s.AttesterURL}, "a b c", 1, "c"},
		"no attester":       {append(attest, "-attester", "http://127.0.0.1:1"), "a b", 1, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "run.json")
			r := instancectl(t, append(append(tt.args[:len(tt.args):len(tt.args)], "-store", "soft", "-report"), name)...)
			if r.status != tt.status {
				t.Fatalf("status %d: %s", r.status, r.stderr)
			}
			act := readReport(t, name)
			if got := stepIDs(act); got != tt.steps || !act.Software {
				t.Errorf("steps %s, want %s", got, tt.steps)
			}
			if f := act.Failure; (f != nil) != (tt.failed != "") || f != nil && (f.Step != tt.failed || f.Remedy == "") {
				t.Errorf("failure %+v", f)
			}
			page := filepath.Join(t.TempDir(), "run.html")
			ok(t, "report", "-out", page, name)
			if content := readPrivate(t, page); !strings.HasPrefix(content, "<!doctype html>") {
				t.Errorf("the page is %.40q", content)
			}
		})
	}
}

// TestReportBadUsage: what cannot be written or read is an error before anything is sent.
func TestReportBadUsage(t *testing.T) {
	s := startServers(t, nil)
	dir := t.TempDir()
	garbage := writeFile(t, "run.json", `{"version":9}`)
	for _, args := range [][]string{
		s.token("-self", s.self, "-store", "soft", "-report", dir),
		s.token("-self", s.self, "-store", "soft", "-report", filepath.Join(dir, "none", "run.html")),
		{"report", garbage}, {"report", "-out", filepath.Join(dir, "x.html"), garbage}, {"report", "-out", dir, garbage},
		{"report", "-out", filepath.Join(dir, "x.html"), filepath.Join(dir, "none")}, {"report", "-out", filepath.Join(dir, "x.html")},
	} {
		if r := instancectl(t, args...); r.status != 2 || r.stdout != "" {
			t.Errorf("%q: status %d, %s%s", args, r.status, r.stdout, r.stderr)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v: files were left", entries, err)
	}
}
