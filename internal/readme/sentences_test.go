// SPDX-License-Identifier: Apache-2.0

package readme_test

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// longestSentence is how many words a sentence may have in what go doc shows.
const longestSentence = 40

// TestSentences: what is exported is documented in sentences that can be read at once.
func TestSentences(t *testing.T) {
	end := regexp.MustCompile(`[.!?]\s+`)
	sentences := 0
	for _, dir := range public {
		for _, file := range parseDir(t, dir) {
			for _, doc := range shown(file) {
				var prose strings.Builder
				for line := range strings.Lines(doc.Text()) {
					if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "  - ") || strings.HasPrefix(line, "# ") {
						line = ". " // code, a list's next item, a title: the end of what was before
					}
					if strings.TrimSpace(line) == "" {
						line = ". "
					}
					prose.WriteString(line)
				}
				for _, sentence := range end.Split(prose.String(), -1) {
					words := strings.Fields(sentence)
					if len(words) > 1 {
						sentences++
					}
					if len(words) > longestSentence {
						t.Errorf("%s: a sentence of %d words: %s", dir, len(words), strings.Join(words, " "))
					}
				}
			}
		}
	}
	if sentences < 1000 {
		t.Errorf("%d sentences were read", sentences)
	}
}

// shown returns the comments of a file that go doc shows.
func shown(file *ast.File) (docs []*ast.CommentGroup) {
	docs = append(docs, file.Doc)
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Name.IsExported() {
				docs = append(docs, decl.Doc)
			}
		case *ast.GenDecl:
			exported := false
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					if spec.Names[0].IsExported() {
						exported = true
						docs = append(docs, spec.Doc, spec.Comment)
					}
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						exported = true
						docs = append(docs, spec.Doc)
						docs = append(docs, ofMembers(spec.Type)...)
					}
				}
			}
			if exported {
				docs = append(docs, decl.Doc)
			}
		}
	}
	return docs
}

func ofMembers(typ ast.Expr) (docs []*ast.CommentGroup) {
	var fields *ast.FieldList
	switch typ := typ.(type) {
	case *ast.StructType:
		fields = typ.Fields
	case *ast.InterfaceType:
		fields = typ.Methods
	default:
		return nil
	}
	for _, field := range fields.List {
		if len(field.Names) == 0 || field.Names[0].IsExported() {
			docs = append(docs, field.Doc, field.Comment)
		}
	}
	return docs
}
