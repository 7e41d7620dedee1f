// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme: README.md has every command and every flag, and none that there is not.
func TestReadme(t *testing.T) {
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	known := map[string]bool{"-h": true, "-": true}
	for _, c := range commands {
		if !strings.Contains(text, "`"+c.name+"`") {
			t.Errorf("it does not have the command %q", c.name)
		}
		fs, _ := c.flags()
		fs.VisitAll(func(f *flag.Flag) { known["-"+f.Name] = true })
	}
	if len(known) < 35 {
		t.Errorf("%d flags are known", len(known))
	}
	written := map[string]bool{}
	for _, match := range regexp.MustCompile("[` \\[(](-[a-z][a-z-]*)").FindAllStringSubmatch(text, -1) {
		written[match[1]] = true
		if !known[match[1]] {
			t.Errorf("it has %s, which no command does", match[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if name != "-" && !written[name] {
			t.Errorf("it does not have %s", name)
		}
	}
}
