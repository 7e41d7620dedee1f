// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMap: the map in doc.go has each file of the package once, and no other.
func TestMap(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, chart, found := strings.Cut(string(text), "package tpm\n")
	if !found {
		t.Fatal("there is no map")
	}
	var mapped []string
	for _, match := range regexp.MustCompile(`(?m)^//\t(\S+)`).FindAllStringSubmatch(chart, -1) {
		mapped = append(mapped, match[1])
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "internal/keyfile")
	files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") || name == "doc.go" })
	slices.Sort(files)
	slices.Sort(mapped)
	if len(files) < 30 || !slices.Equal(files, mapped) {
		t.Errorf("the map has\n%q\nand there are\n%q", mapped, files)
	}
}

// TestGuide: each part of the documentation can be read in one sitting.
func TestGuide(t *testing.T) {
	for _, name := range []string{"doc.go", "guide.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 300 {
			t.Errorf("%s has %d lines, and 300 are the most", name, n)
		}
		if !strings.Contains(string(text), "// # ") {
			t.Errorf("%s documents nothing", name)
		}
	}
}
