// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWorkflowsRunWhatIsThere: what the workflow files call is a target of the Makefile
// or a file of .ci.
func TestWorkflowsRunWhatIsThere(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	isTarget := func(name string) bool {
		return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `:`).Match(makefile)
	}
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("workflows %q: %v", files, err)
	}
	runs := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var targets []string
		for _, list := range regexp.MustCompile(`target: \[(.*)\]`).FindAllStringSubmatch(string(text), -1) {
			targets = append(targets, strings.Split(list[1], ", ")...)
		}
		for _, run := range regexp.MustCompile(`run: make ([a-z-]+)`).FindAllStringSubmatch(string(text), -1) {
			targets = append(targets, run[1])
		}
		for _, target := range targets {
			runs++
			if !isTarget(target) {
				t.Errorf("%s: the Makefile has no target %s", filepath.Base(file), target)
			}
		}
		for _, script := range regexp.MustCompile(`run: (\.ci/\S+)`).FindAllStringSubmatch(string(text), -1) {
			runs++
			if _, err := os.Stat(filepath.Join("../..", script[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
	if runs < 5 {
		t.Errorf("only %d commands found", runs)
	}
}
