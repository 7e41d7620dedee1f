// SPDX-License-Identifier: Apache-2.0

package readme_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// documents are the texts for people: the *.md files, but for the changelog, whose old
// entries speak of what was.
func documents(t *testing.T) (names []string) {
	t.Helper()
	listed, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "*.md").Output()
	if err != nil { // not a clone
		t.Skip(err)
	}
	for name := range strings.FieldsSeq(string(listed)) {
		if name != "CHANGELOG.md" {
			names = append(names, name)
		}
	}
	if len(names) < 8 {
		t.Fatalf("found only %q", names)
	}
	return names
}

// TestLimits: the README's table of limits has what the source has.
func TestLimits(t *testing.T) {
	inSource := []struct{ row, file, line string }{
		{"sends of one request, with all retries | 4", "transport/attempt.go", "maxSends = 4"},
		{"wait for metadata or a challenge | 30 seconds", "client/server.go", "discoverTimeout = 30 * time.Second"},
		{"wait for metadata or a challenge | 30 seconds", "transport/fetch.go", "fetchTimeout = 30 * time.Second"},
		{"wait for the token of `c.Token` | 2 minutes", "client/token.go", "tokenTimeout = 2 * time.Minute"},
		{"wait for an attestation | 3 minutes", "client/attestations.go", "attestTimeout = 3 * time.Minute"},
		{"wait for a busy TPM | 30 seconds", "tpm/send.go", "patience = 30 * time.Second"},
		{"attestation | 32 kB", "client/check.go", "maxAttestation = 32 << 10"},
		{"header fields of a request | 16 kB", "transport/header.go", "headerLimit = 16 << 10"},
		{"metadata | 1 MiB", "client/metadata.go", "maxMetadata = 1 << 20"},
		{"answer of an attester | 256 kB", "client/httpattester.go", "maxAttesterAnswer = 256 << 10"},
		{"request to an attester, with the boot log | 1 MiB", "client/httpattester.go", "maxAttesterRequest = 1 << 20"},
		{"body that a PoP JWT vouches for (`BindBody`) | 1 MiB", "transport/bind.go", "maxBoundBody = 1 << 20"},
		{"PIN | 32 bytes", "tpm/session.go", "maxPIN = 32"},
		{"name of a key | 128 characters", "keystore/keystore.go", "1 to 128 characters"},
	}
	_, table, found := strings.Cut(read(t, "README.md"), "\n## Limits\n")
	table, _, _ = strings.Cut(table, "\nAll other waits")
	if rows := strings.Count(table, "\n| ") - 1; !found || rows != len(inSource)-1 { // one row is for two lines
		t.Errorf("the README has %d limits, this test %d", rows, len(inSource)-1)
	}
	spaces := regexp.MustCompile(` +`)
	for _, limit := range inSource {
		if !strings.Contains(table, "\n| "+limit.row+" |\n") {
			t.Errorf("the README lacks %q", limit.row)
		}
		if source := spaces.ReplaceAllString(read(t, limit.file), " "); !strings.Contains(source, limit.line) {
			t.Errorf("%s lacks %q", limit.file, limit.line)
		}
	}
}

// TestFlags: a tool has the flags, and instancectl the commands, that the documents type.
func TestFlags(t *testing.T) {
	tools := map[string][]string{
		"instancectl": {"examples/instancectl", "examples/internal/storeflag"},
		"quickstart":  {"examples/quickstart", "examples/internal/storeflag"},
		"device":      {"examples/device"},
		"wraphttp":    {"examples/wraphttp"},
		"attesterd":   {"examples/attester/attesterd"},
		"authserverd": {"examples/authserver/authserverd"},
	}
	command := regexp.MustCompile(`(?:go run \./examples/(?:\w+/)?|` + "`" + `|\s)(instancectl|quickstart|device|wraphttp|attesterd|authserverd)((?: +[^\s` + "`" + `;|&]+)+)`)
	flag := regexp.MustCompile(`^-([a-z][a-z-]*)(?:=|$)`)
	checked := make(map[string]int)
	texts := documents(t)
	for _, dir := range []string{"examples/instancectl", "examples/quickstart", "examples/device", "examples/wraphttp", "examples/attester/attesterd", "examples/authserver/authserverd"} {
		texts = append(texts, dir+"/main.go")
	}
	for _, name := range texts {
		text := read(t, name)
		if strings.HasSuffix(name, ".go") {
			text, _, _ = strings.Cut(text, "\npackage ")
			text = strings.ReplaceAll(text, "\n//", "\n")
		}
		text = regexp.MustCompile(`\\\s*\n\s*`).ReplaceAllString(text, "") // a command on several lines
		for _, match := range command.FindAllStringSubmatch(text, -1) {
			tool, words := match[1], strings.Fields(match[2])
			if !strings.HasPrefix(match[0], "go run") && !slices.ContainsFunc(words, func(w string) bool { return flag.MatchString(w) }) {
				continue // a sentence
			}
			defined := flagsOf(t, tools[tool])
			for _, word := range words {
				found := flag.FindStringSubmatch(word)
				if found == nil {
					continue
				}
				checked[tool]++
				if !defined[found[1]] {
					t.Errorf("%s types %s -%s, which %s does not have", name, tool, found[1], tool)
				}
			}
		}
	}
	for _, tool := range []string{"instancectl", "quickstart", "device", "wraphttp"} {
		if checked[tool] == 0 {
			t.Errorf("no flag of %s was found in any document", tool)
		}
	}
}

var definedFlags = make(map[string]map[string]bool)

// flagsOf returns the names that the code in these folders gives to flag.FlagSet.
func flagsOf(t *testing.T, dirs []string) map[string]bool {
	t.Helper()
	key := strings.Join(dirs, " ")
	if known := definedFlags[key]; known != nil {
		return known
	}
	names := map[string]bool{"h": true}
	for _, dir := range dirs {
		for _, file := range parseDir(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				for i, arg := range call.Args {
					// fs.String("name", …), fs.StringVar(&v, "name", …)
					literal, ok := arg.(*ast.BasicLit)
					if ok && i < 2 && literal.Kind == token.STRING && isFlagCall(call.Fun) {
						if text, err := strconv.Unquote(literal.Value); err == nil {
							names[text] = true
						}
						break
					}
				}
				return true
			})
		}
	}
	definedFlags[key] = names
	return names
}

func isFlagCall(f ast.Expr) bool {
	selector, ok := f.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	name := strings.TrimSuffix(selector.Sel.Name, "Var")
	return slices.Contains([]string{"String", "Bool", "Int", "Duration", "Func", "BoolFunc", "Text", ""}, name) && selector.Sel.Name != ""
}

// parseDir parses the Go files of a folder, tests left out.
func parseDir(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); entry.Type()&fs.ModeType == 0 && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	return files
}
