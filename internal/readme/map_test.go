// SPDX-License-Identifier: Apache-2.0

package readme_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMaps: the comment of a package says where to find what in it, of each file and
// of none that is not there.
func TestMaps(t *testing.T) {
	for _, name := range []string{"client", "transport"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("../..", name)
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "doc.go"), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			_, guide, found := strings.Cut(file.Doc.Text(), "# Where to find what\n")
			if !found {
				t.Fatal("the package comment has no such part")
			}
			named := regexp.MustCompile(`[a-z0-9_]+\.go`).FindAllString(guide, -1)
			var there []string
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				if strings.HasSuffix(entry.Name(), ".go") && !strings.HasSuffix(entry.Name(), "_test.go") && entry.Name() != "doc.go" {
					there = append(there, entry.Name())
				}
			}
			slices.Sort(named)
			if !slices.Equal(named, there) {
				t.Errorf("it names %q\n, there are %q", named, there)
			}
		})
	}
}
