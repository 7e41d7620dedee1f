// SPDX-License-Identifier: Apache-2.0

// Package testindex knows the names of the module's tests, for documents that name
// them.
package testindex

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Of returns the tests, fuzz tests and examples of the module at root, each
// as package.Name with the string literals in it, among which the names of its
// subtests are.
func Of(t testing.TB, root string) map[string][]string {
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
