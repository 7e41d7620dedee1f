// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTableIsChecked holds the README's table, and the checks on a whole machine (vm_test.go, make
// device-vm), together: each row is checked, by its name.
func TestTableIsChecked(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(readme), "\n| what happens | what it does |\n|---|---|\n")
	table, _, ends := strings.Cut(table, "\n\n")
	if !found || !ends {
		t.Fatal("the README has no table of what happens")
	}
	var rows []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		rows = append(rows, strings.TrimPrefix(cells[0], "| "))
	}
	checks := checksOf(t, "vm_test.go")
	if len(rows) < 20 || len(checks) < 20 {
		t.Errorf("%d rows and %d checks", len(rows), len(checks))
	}
	for _, row := range rows {
		if !slices.Contains(checks, row) {
			t.Errorf("nothing in vm_test.go checks %q", row)
		}
	}
	for i, check := range checks {
		if !slices.Contains(rows, check) {
			t.Errorf("the README's table does not have %q", check)
		}
		if slices.Contains(checks[:i], check) {
			t.Errorf("%q is there twice", check)
		}
	}
}

// checksOf returns the names in the list vmChecks of a file that is not built here.
func checksOf(t *testing.T, file string) (names []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "vmChecks" {
			return true
		}
		for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
			fields := element.(*ast.CompositeLit).Elts
			name, err := strconv.Unquote(fields[0].(*ast.BasicLit).Value)
			if run, ok := fields[1].(*ast.SelectorExpr); err != nil || !ok || run.Sel.Name == "" {
				t.Errorf("a check without a name or a function: %v", err)
			}
			names = append(names, name)
		}
		return false
	})
	return names
}
