// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/testindex"
)

// rules is the number of client rules, C1 to C50.
const rules = 50

// TestConformance holds CONFORMANCE.md to what it says: every rule is there
// once and has a test, and every test that it names exists.
func TestConformance(t *testing.T) {
	content, err := os.ReadFile("CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	known := testindex.Of(t, "..")
	if known["transport.TestConformance"] == nil || len(known) < 100 {
		t.Fatalf("%d tests found, this one among them: %v", len(known), known["transport.TestConformance"] != nil)
	}
	seen := make(map[string]bool)
	named := regexp.MustCompile("`([a-z]+)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)(?:/([^`]+))?`")
	for i, line := range strings.Split(string(content), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		tests := named.FindAllStringSubmatch(line, -1)
		for _, test := range tests {
			literals, ok := known[test[1]+"."+test[2]]
			if !ok {
				t.Errorf("line %d names %s.%s, which does not exist", i+1, test[1], test[2])
			} else if test[3] != "" && !slices.Contains(literals, test[3]) {
				t.Errorf("line %d names a subtest %q, which %s does not have", i+1, test[3], test[2])
			}
		}
		rule := strings.TrimSpace(cells[0])
		if !regexp.MustCompile(`^C\d+$`).MatchString(rule) {
			continue
		}
		if seen[rule] {
			t.Errorf("%s is there twice", rule)
		}
		seen[rule] = true
		if len(cells) != 5 {
			t.Errorf("%s has %d columns, want 5", rule, len(cells))
			continue
		}
		for _, cell := range cells {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("%s has an empty column", rule)
			}
		}
		if !named.MatchString(cells[4]) {
			t.Errorf("%s has no test", rule)
		}
	}
	for n := 1; n <= rules; n++ {
		if rule := fmt.Sprint("C", n); !seen[rule] {
			t.Errorf("%s is missing", rule)
		}
		delete(seen, fmt.Sprint("C", n))
	}
	if len(seen) != 0 {
		t.Errorf("there are no rules %v", slices.Collect(maps.Keys(seen)))
	}
}
