// SPDX-License-Identifier: Apache-2.0

// Package winetest runs the tests of other packages on Windows: under Wine, where the TPM Base Services are a DLL of ours
// in front of swtpm and a resource manager (testdata/tbs.c).
package winetest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// suites are the packages whose tests run, and how many have to pass at the least: tests that are not built, or skip,
// say nothing.
var suites = []struct {
	folder string
	passes int
	flags  []string
}{
	{"keystore", 20, nil},
	{"softkey", 25, nil},
	{"internal/privatefile", 20, nil},
	{"internal/authchallenge", 1, nil},
	{"internal/endpoint", 1, nil},
	{"internal/flight", 1, nil},
	{"transport", 100, nil},
	// Of client what has to do with files: the rest takes minutes in Wine.
	{"client", 14, []string{
		"-test.run=^Test(DirCache|Cache|StoredToken|ReadStoredToken)",
		"-test.skip=^Test(DirCache|DirCacheRefuses|DirCacheOfOthersIsNotRead|StoredTokenFile|ReadStoredTokenRefuses)$", // they look at modes
	}},
	{"tpm", 25, nil},
	// Most tests of instancectl look at modes, Unix sockets and links.
	{"examples/instancectl", 3, []string{"-test.run=^Test(TBS|Help|HelpAll)$"}},
}

// TestWindows needs a folder of Debian 13's with Wine, as .ci/wine makes one:
//
//	make windows
func TestWindows(t *testing.T) {
	root := os.Getenv("WINE_ROOT")
	if root == "" {
		t.Skip("WINE_ROOT does not name a folder with Wine: use make windows")
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	chip := tpmtest.SWTPM(t, tpmtest.SWConfig{TCP: true, EKCertificates: true})
	t.Setenv("TBS_ADDRESS", tpmtest.ServeTCP(t, tpmtest.NewResourceManager(t, chip)))
	t.Setenv("TPM_TBS", "1") // package tpm's tests may use it

	// Z:\work in Wine is a folder with the programs, and the repository below it.
	work := t.TempDir()
	build(t, "x86_64-w64-mingw32-gcc", "-Wall", "-Werror", "-shared", "-o", filepath.Join(work, "tbs.dll"), "testdata/tbs.c", "-lws2_32")
	for _, suite := range suites {
		t.Run(suite.folder, func(t *testing.T) {
			program := strings.ReplaceAll(suite.folder, "/", "-") + ".exe"
			build(t, "go", "test", "-c", "-o", filepath.Join(work, program), "../../"+suite.folder)
			args := append([]string{root, work, repository, suite.folder, `Z:\work\` + program, "-test.v"}, suite.flags...)
			out, err := exec.CommandContext(t.Context(), filepath.Join(repository, ".ci", "in-wine"), args...).CombinedOutput()
			report(t, out, suite.passes)
			if err != nil {
				t.Errorf("%s: %v", program, err)
			}
		})
	}
}

// build runs a compiler, for Windows and without cgo.
func build(t *testing.T, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

var ending = regexp.MustCompile(`^( *)--- (PASS|FAIL|SKIP): (\S+) `)

// report logs what tests printed that did not pass, and counts those that did.
func report(t *testing.T, out []byte, want int) {
	t.Helper()
	counts := map[string]int{}
	var kept, pending []string // pending is of a test that has not ended
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "=== ") || line == "PASS" {
			continue
		}
		pending = append(pending, line)
		match := ending.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		if match[2] != "PASS" {
			kept = append(kept, pending...)
		}
		pending = nil
		if match[1] == "" { // no subtest
			counts[match[2]]++
		}
	}
	summary := fmt.Sprintf("%d tests passed, %d skipped, %d failed", counts["PASS"], counts["SKIP"], counts["FAIL"])
	t.Logf("%s\n%s", summary, strings.Join(append(kept, pending...), "\n"))
	if counts["PASS"] < want {
		t.Errorf("%s: want %d at the least to pass", summary, want)
	}
}
