// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/tpm"
)

// TestTerms: no text of an error in the SDK's source names a field, a function or a
// package to somebody who types commands.
func TestTerms(t *testing.T) {
	inGo := regexp.MustCompile(`Config\.[A-Z]|\b(client|keystore|softkey|tpm|transport)\.[A-Z]|^(client|keystore|softkey|tpm|transport): `)
	// These are not errors, or those of programmers alone.
	exempt := regexp.MustCompile(`^(client|tpm|softkey|transport)\.[A-Z]\w+( in |\{)|: set only one of Config\.Device|Config\.(BindBody|Origins|Claims)\b|EvidenceRequest\.Binding|Config\.Dial returned|^client: token: %.200q is none`)
	named := 0
	for _, folder := range []string{"client", "keystore", "softkey", "tpm", "transport"} {
		for _, literal := range literals(t, filepath.Join("..", "..", folder)) {
			if !inGo.MatchString(literal) || exempt.MatchString(literal) {
				continue
			}
			named++
			if text := inTerms(literal); inGo.MatchString(text) {
				t.Errorf("%s: %q is left as it is: %q", folder, literal, text)
			}
		}
	}
	if named < 100 {
		t.Errorf("%d texts were found", named)
	}
}

// literals returns the string literals of a folder's packages.
func literals(t *testing.T, folder string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasSuffix(path, "test") {
			return fs.SkipDir // a test kit: its errors are for programmers
		}
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == gotoken.STRING {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, text)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestInTerms: what an error says twice is said once.
func TestInTerms(t *testing.T) {
	twice := errors.New("tpm: open: no TPM: check Config.Device")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{twice, "open: no TPM: correct -store"},
		{fmt.Errorf("client: key: %w", twice), "key: open: no TPM: correct -store"},
		{errors.Join(twice, twice), "open: no TPM: correct -store"},
		{errors.Join(twice, tpm.ErrInUse), "open: no TPM: correct -store; TPM in use"},
		{fmt.Errorf("%w: %w", tpm.ErrInUse, tpm.ErrInUse), "TPM in use"},
	} {
		if got := inTerms(tt.err.Error()); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.err, got, tt.want)
		}
	}
}
