// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
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
	known := testsOf(t, "..")
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

// testsOf returns the tests, fuzz tests and examples of the module at root, each
// as package.Name with the string literals in it, among which the names of its
// subtests are.
func testsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || entry.Name() == "testdata"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Recv != nil {
				continue
			}
			name := strings.TrimSuffix(file.Name.Name, "_test") + "." + function.Name.Name
			literals := []string{}
			ast.Inspect(function, func(node ast.Node) bool {
				if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil {
						literals = append(literals, text)
					}
				}
				return true
			})
			found[name] = literals
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
