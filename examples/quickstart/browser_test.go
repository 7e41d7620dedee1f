// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client/report"
)

// TestPage has a real browser look at pages: of a run, of a story, of a run that has
// failed, of one that never began, and of one whose servers are hostile. FIGURE_BROWSER
// is the browser, and FIGURE_NODE the Node.js; see .ci/browser. Without them the test is skipped,
// also where nothing else may be: "make test" needs no browser.
func TestPage(t *testing.T) {
	browser, node := os.Getenv("FIGURE_BROWSER"), os.Getenv("FIGURE_NODE")
	if browser == "" || node == "" {
		t.Skip(`FIGURE_BROWSER is not set: use "make figure-test"`)
	}
	shots := os.Getenv("FIGURE_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	dir := t.TempDir()
	page := func(name string) string { return filepath.Join(dir, name+".html") }
	for name, args := range map[string][]string{
		"run":    {"-store", "simulator"},
		"story":  {"-story", "firmware"},
		"failed": {"-store", "tcp:127.0.0.1:1"},
	} {
		status, _, stderr := quickstart(t, append(args, "-report", page(name))...)
		if (status == 0) != (name != "failed") {
			t.Fatalf("%s: status %d: %s", name, status, stderr)
		}
	}
	if err := hostileRun(t).WriteFile(page("hostile")); err != nil {
		t.Fatal(err)
	}
	empty := report.Document{Acts: []report.Act{report.NewRecorder(report.Options{}).Act()}}
	if err := empty.WriteFile(page("empty")); err != nil {
		t.Fatal(err)
	}

	// How many steps have content of their own, over all acts.
	pages := []struct {
		name                      string
		acts, steps, opens, shots int
	}{{"run", 1, 10, 5, 5}, {"story", 6, 60, 2, 1}, {"failed", 1, 0, 2, 1}, {"hostile", 1, 10, 2, 1}, {"empty", 1, 0, 2, 1}}
	args := []string{"browser/walk.mjs", browser, shots}
	for _, p := range pages {
		args = append(args, page(p.name))
	}
	cmd := exec.CommandContext(t.Context(), node, args...)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var seen map[string]struct {
		Problems                                    []string
		Steps, Walked, Screenshots, Rules, Requests int
	}
	if err := json.Unmarshal(output, &seen); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, p := range pages {
		found := seen[p.name+".html"]
		for _, problem := range found.Problems {
			t.Errorf("%s: %s", p.name, problem)
		}
		walked, rules := 10*p.acts, 15
		switch p.name {
		case "run":
			walked *= 2
		case "story":
			rules = 0
		}
		if found.Steps != p.steps || found.Walked != walked || found.Screenshots != p.shots || found.Rules < rules || found.Requests != p.opens {
			found.Problems = nil
			t.Errorf("%s: %+v, want %+v", p.name, found, p)
		}
	}
}

// hostileRun is the report of a run with what would be more than a text on a careless
// page, wherever there is one.
func hostileRun(t *testing.T) report.Document {
	t.Helper()
	_, d := reported(t, "-store", "soft")
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	const attack = `</pre></style></script><script>alert(1)</script><img src=x onerror=alert(2)>"><svg onload=alert(3)>' onfocus='alert(4)' autofocus x='` + "\u202e\u0007"
	var spoil func(name string, value any) any
	spoil = func(name string, value any) any {
		switch v := value.(type) {
		case map[string]any:
			for member := range v {
				v[member] = spoil(member, v[member])
			}
		case []any:
			for i := range v {
				v[i] = spoil(name, v[i])
			}
		case string:
			kept := name == "step" || name == "kind" || name == "from" || name == "to" || name == "began"
			if !kept {
				return v + attack + strings.Repeat("W", 300)
			}
		}
		return value
	}
	if text, err = json.Marshal(spoil("", value)); err != nil {
		t.Fatal(err)
	}
	var spoiled report.Document
	if err := json.Unmarshal(text, &spoiled); err != nil {
		t.Fatal(err)
	}
	return spoiled
}
