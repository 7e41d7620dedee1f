// SPDX-License-Identifier: Apache-2.0

package layering_test

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// toCopy are the programs that are there to be copied, and how each is run to see
// that the copy works.
var toCopy = map[string]struct{ args, says string }{
	"device":   {"-h", "-issuer URL"},
	"wraphttp": {"", "200 OK"},
	"otel":     {"", `"Name": "send"`},
}

// TestCopied copies each program into a module of its own, as whoever begins with it
// does. It then imports public packages only, builds with and without cgo, runs, and
// links neither the TPM simulator nor libcrypto.
func TestCopied(t *testing.T) {
	for name, run := range toCopy {
		for _, cgo := range []string{"0", "1"} {
			t.Run(name+"/cgo "+cgo, func(t *testing.T) {
				t.Parallel()
				if _, err := exec.LookPath("cc"); err != nil && cgo == "1" {
					if os.Getenv("CI") != "" {
						t.Fatal("no C compiler")
					}
					t.Skip("no C compiler")
				}
				dir := copyOut(t, name)
				env := append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
				if _, err := goOutput(t, dir, env, "build", "-ldflags=-s -w", "-o", "program"); err != nil {
					// Here nothing is fetched: "make test" has done that before.
					if strings.Contains(err.Error(), "disabled by GOPROXY=off") && os.Getenv("CI") == "" {
						t.Skipf("a module is not in the cache, which cd examples/%s && go mod download changes: %v", name, err)
					}
					t.Fatal(err)
				}
				for _, p := range linked(t, dir, env) {
					if p.Standard {
						continue
					}
					if len(p.CgoFiles) > 0 || slices.ContainsFunc(mayNotLink, func(not string) bool { return within(p.ImportPath, not) }) {
						t.Errorf("it links %s", p.ImportPath)
					}
				}
				program := filepath.Join(dir, "program")
				if with := goTool(t, dir, env, "version", "-m", program); strings.Contains(with, "go-tpm-tools") || !strings.Contains(with, "CGO_ENABLED="+cgo) {
					t.Errorf("it was built with:\n%s", with)
				}
				checkLibraries(t, program)
				output, err := exec.CommandContext(t.Context(), program, strings.Fields(run.args)...).CombinedOutput()
				if err != nil || !strings.Contains(string(output), run.says) {
					t.Errorf("%v: %s", err, output)
				}
			})
		}
	}
	// What the test looks for is there to be found.
	if !slices.ContainsFunc(list(t, "linux", "./examples/instancectl"), func(p listed) bool { return within(p.ImportPath, mayNotLink[0]) }) {
		t.Errorf("instancectl does not link %s", mayNotLink[0])
	}
}

// copyOut makes a module of a copy of a program, its tests left out. What the program
// has no go.mod for, it has from the one of this module.
func copyOut(t *testing.T, name string) (dir string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "examples", name)
	entries, err := os.ReadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	put := func(from, to string) {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(root, "go.sum"), "go.sum")
	files := 0
	for _, entry := range entries {
		if entry.Type() == fs.ModeDir || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		put(filepath.Join(source, entry.Name()), entry.Name())
		if strings.HasSuffix(entry.Name(), ".go") {
			files++
		}
	}
	if files == 0 {
		t.Fatalf("%s has no Go files", source)
	}
	env := append(os.Environ(), "GOWORK=off")
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		goTool(t, dir, env, "mod", "init", "example.com/copied/"+name)
	} else {
		goTool(t, dir, env, "mod", "edit", "-module=example.com/copied/"+name)
	}
	goTool(t, dir, env, "mod", "edit", "-require="+module+"@v0.0.0", "-replace="+module+"="+root)
	return dir
}

// linked returns the packages that the program in a folder is made of.
func linked(t *testing.T, dir string, env []string) []listed {
	t.Helper()
	return decodeList(t, goTool(t, dir, env, "list", "-deps", "-json=ImportPath,Standard,DepOnly,Imports,CgoFiles", "."))
}

// checkLibraries allows a program the C library alone, for package net.
func checkLibraries(t *testing.T, program string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range libraries {
		if !strings.HasPrefix(library, "libc.") && !strings.HasPrefix(library, "libresolv.") && !strings.HasPrefix(library, "libpthread.") {
			t.Errorf("it is linked to %s", library)
		}
	}
}

func goTool(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	output, err := goOutput(t, dir, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func goOutput(t *testing.T, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = dir, env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(output), err
}
