// SPDX-License-Identifier: Apache-2.0

package layering_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"
)

// TestRequirements: go.mod says what each direct dependency is for, so that nobody
// adds one without a reason, and an updater sees what to try.
func TestRequirements(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal([]byte(goTool(t, "../..", nil, "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		direct++
		reason := regexp.MustCompile(`(?m)^(require)?\s+` + regexp.QuoteMeta(r.Path) + ` \S+ // [a-z].+$`)
		if !reason.Match(text) {
			t.Errorf("go.mod requires %s: if a tool alone needs it, give the tool a module of its own; or else say beside it what it is for", r.Path)
		}
	}
	if direct == 0 {
		t.Error("go.mod requires nothing directly")
	}
}
