// SPDX-License-Identifier: Apache-2.0

// Package layering_test holds the rules about which package may import which.
//
//	examples ──► client ──► transport ──► keystore ◄── softkey
//	        └────────────────────────────► tpm ──► keystore
//
// Applications choose where keys live, so client and transport know neither
// tpm nor softkey; and a device that uses client and tpm links no C code.
package layering_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/instancekey/instancekey"

// What each folder's packages, tests left out, may import beside the standard
// library, their own folder and this module's internal packages: folders of
// this module, and other modules.
var mayImport = map[string][]string{
	"keystore": {"github.com/go-jose/go-jose/v4"},
	"softkey":  {"keystore"},
	// x/crypto is cryptobyte, which go-tpm-keyfiles links anyway: for the one field of a
	// key file that it cannot write, and for answers of the TPM. x/sys is for numbers of devices.
	"tpm":       {"keystore", "github.com/google/go-tpm", "github.com/foxboron/go-tpm-keyfiles", "golang.org/x/crypto", "golang.org/x/sys"},
	"transport": {"keystore", "github.com/go-jose/go-jose/v4"},
	"client":    {"keystore", "transport", "github.com/go-jose/go-jose/v4", "golang.org/x/oauth2"},
}

// What must not be linked, however far down: for every folder, and for some.
var (
	mayNotLink = []string{"github.com/google/go-tpm-tools", "google.golang.org/protobuf", "github.com/golang/protobuf"}
	norLink    = map[string][]string{
		"keystore":  {module + "/tpm", module + "/softkey", "github.com/google/go-tpm"},
		"transport": {module + "/tpm", module + "/softkey", "github.com/google/go-tpm"},
		"client":    {module + "/tpm", module + "/softkey", "github.com/google/go-tpm"},
		"softkey":   {module + "/tpm", "github.com/google/go-tpm"},
		"tpm":       {module + "/softkey", module + "/transport", module + "/client"},
	}
)

// listed is what `go list -json` says about a package.
type listed struct {
	ImportPath string
	Standard   bool
	DepOnly    bool // not named on the command line, but imported by what is
	Imports    []string
	CgoFiles   []string
}

func TestImports(t *testing.T) {
	for folder, allowed := range mayImport {
		t.Run(folder, func(t *testing.T) {
			for _, platform := range []string{"linux", "windows"} {
				packages := list(t, platform, "./"+folder+"/...")
				standard := map[string]bool{}
				for _, p := range packages {
					standard[p.ImportPath] = p.Standard
				}
				for _, p := range packages {
					for _, forbidden := range slices.Concat(mayNotLink, norLink[folder]) {
						if within(p.ImportPath, forbidden) {
							t.Errorf("%s: %s links %s", platform, folder, p.ImportPath)
						}
					}
					if len(p.CgoFiles) != 0 && !p.Standard {
						t.Errorf("%s: %s links C code, in %s", platform, folder, p.ImportPath)
					}
					if p.DepOnly {
						continue
					}
					for _, imported := range p.Imports {
						if !standard[imported] && !isAllowed(imported, folder, allowed) {
							t.Errorf("%s: %s imports %s", platform, p.ImportPath, imported)
						}
					}
				}
			}
		})
	}
}

// TestTemplates: html/template, which keeps a linker from leaving out unused methods, is
// linked by whoever imports client/report, and by nobody else.
func TestTemplates(t *testing.T) {
	links := func(pattern string) bool {
		return slices.ContainsFunc(list(t, "linux", pattern), func(p listed) bool { return p.ImportPath == "html/template" })
	}
	for _, pattern := range []string{"./client", "./transport", "./tpm", "./keystore", "./softkey"} {
		if links(pattern) {
			t.Errorf("%s links html/template", pattern)
		}
	}
	if !links("./client/report") {
		t.Error("client/report does not link html/template: then this test finds nothing")
	}
}

// TestFolders keeps mayImport complete: a new folder needs its row. In findings
// there is no Go.
func TestFolders(t *testing.T) {
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || strings.HasPrefix(name, ".") || slices.Contains([]string{"internal", "examples", "findings"}, name) {
			continue
		}
		if _, ok := mayImport[name]; !ok {
			t.Errorf("folder %s has no import rule", name)
		}
	}
}

func isAllowed(imported, folder string, allowed []string) bool {
	if within(imported, path.Join(module, folder)) || within(imported, path.Join(module, "internal")) {
		return true
	}
	return slices.ContainsFunc(allowed, func(a string) bool {
		return within(imported, a) || within(imported, path.Join(module, a))
	})
}

// within reports whether the import path is root or below it.
func within(importPath, root string) bool {
	return importPath == root || strings.HasPrefix(importPath, root+"/")
}

// list returns the packages of pattern and all that they import, tests left out.
func list(t *testing.T, goos, pattern string) []listed {
	t.Helper()
	// With cgo on, so that a package with C code shows.
	env := append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=1")
	packages := decodeList(t, goTool(t, "../..", env, "list", "-deps", "-json=ImportPath,Standard,DepOnly,Imports,CgoFiles", pattern))
	if len(packages) == 0 {
		t.Fatalf("go list %s: no packages", pattern)
	}
	return packages
}

func decodeList(t *testing.T, output string) (packages []listed) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(output))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
