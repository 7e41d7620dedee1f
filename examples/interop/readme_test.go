// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme: every row of README.md's table of servers was read only, or names
// the tests that hold it; the versions are those that are installed.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	var files []string
	for _, pattern := range []string{"*_test.go", "*/*_test.go"} { // modules of their own are below
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[f.Name.Name] = true
			}
		}
	}
	tried, read := 0, 0
	for _, line := range strings.Split(string(text), "\n") {
		for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(line, -1) {
			if !tests[name[1]] {
				t.Errorf("no test %s", name[1])
			}
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 6 || cells[0] == "server" {
			continue
		}
		switch state := cells[5]; {
		case state == "read":
			read++
		case regexp.MustCompile("^tried [0-9]+ [A-Z][a-z]+ [0-9]{4}: `Test").MatchString(state):
			tried++
		default:
			t.Errorf("%s %s is neither tried nor read: %s", cells[0], cells[1], state)
		}
	}
	if tried != 4 || read != 3 {
		t.Errorf("%d rows tried and %d read, want 4 and 3", tried, read)
	}

	var lock struct {
		Packages map[string]struct{ Version string }
	}
	if locked, err := os.ReadFile("package-lock.json"); err != nil || json.Unmarshal(locked, &lock) != nil {
		t.Fatal(err)
	}
	for module, name := range map[string]string{
		"oidc-provider": "npm oidc-provider | ", "oidc-provider-9.12.2": "npm oidc-provider | ", "oidc-provider-9.8.6": "npm oidc-provider | ",
		"@openid4vc/oauth2": "npm @openid4vc/oauth2 ", "@pagopa/io-wallet-oauth2": "npm @pagopa/io-wallet-oauth2 ",
	} {
		version := lock.Packages["node_modules/"+module].Version
		if version == "" || !strings.Contains(string(text), "| "+name+version) {
			t.Errorf("README.md does not name %s%q", name, version)
		}
	}
	requirements, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"PyJWT", "client-attestation-sdk"} {
		version := regexp.MustCompile(name + "==([0-9.]+)").FindSubmatch(requirements)
		if version == nil || !strings.Contains(string(text), name+" "+string(version[1])) {
			t.Errorf("README.md does not name the version of %s", name)
		}
	}
	script, err := os.ReadFile("../../.ci/keycloak")
	version := regexp.MustCompile(`(?m)^version=([0-9.]+)$`).FindSubmatch(script)
	if err != nil || version == nil {
		t.Fatalf("no version of Keycloak: %v", err)
	}
	recipe, err := os.ReadFile("keycloak/README.md")
	if err != nil || strings.Count(string(recipe), string(version[1])) < 5 || !strings.Contains(string(text), "| Keycloak | "+string(version[1])+" |") {
		t.Errorf("the documents are not on Keycloak %s, %v", version[1], err)
	}
}
