// SPDX-License-Identifier: Apache-2.0

package readme_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/testindex"
)

// TestSECURITY: each threat in SECURITY.md names tests that show what is said to hold
// against it, and they exist.
func TestSECURITY(t *testing.T) {
	content, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	known := testindex.Of(t, "../..")
	named := regexp.MustCompile("`([a-z]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]*)`")
	threats := 0
	for line := range strings.SplitSeq(string(content), "\n") {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| threat |") {
			continue
		}
		threats++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			t.Errorf("%.60s has %d columns, want 3", line, len(cells))
			continue
		}
		tests := named.FindAllStringSubmatch(cells[2], -1)
		if len(tests) == 0 {
			t.Errorf("%.60s names no test", line)
		}
		if rest := strings.TrimSpace(named.ReplaceAllString(cells[2], "")); rest != "" {
			t.Errorf("%.60s names %q, which is no test", line, rest)
		}
		for _, test := range tests {
			if _, ok := known[test[1]+"."+test[2]]; !ok {
				t.Errorf("%.60s names %s.%s, which does not exist", line, test[1], test[2])
			}
		}
	}
	if threats < 14 {
		t.Errorf("%d threats found", threats)
	}
}
