// SPDX-License-Identifier: Apache-2.0

// Package winetest runs the tests of other packages on Windows: under Wine, where the TPM Base Services are a DLL of ours
// in front of swtpm and a resource manager (testdata/tbs.c).
package winetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// suites are the packages whose tests run, how many have to pass at the least, and how many may skip: tests that are not
// built, or skip, say nothing.
var suites = []struct {
	folder string
	passes int
	skips  int
	flags  []string
}{
	{"keystore", 24, 0, nil},
	{"softkey", 30, 4, nil},
	{"internal/privatefile", 26, 1, nil},
	{"internal/authchallenge", 4, 0, nil},
	{"internal/endpoint", 8, 0, nil},
	{"internal/flight", 13, 0, nil},
	{"transport", 150, 0, nil},
	// The three that are left out take a minute to reckon with every answer and every date, in a time that is not
	// Windows', and do nothing with files.
	{"client", 285, 3, []string{"-test.skip=^Test(NoBadAnswerSticks|EveryStartDate|ReflectedCredentialsAreNotShown)$"}},
	{"client/report", 14, 0, nil},
	{"tpm", 30, 260, nil}, // most want a TPM of their own, of a certain kind
	{"examples/instancectl", 70, 30, nil},
	{"examples/device", 16, 6, nil},
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
	if err := build(t.Context(), "x86_64-w64-mingw32-gcc", "-Wall", "-Werror", "-shared", "-o", filepath.Join(work, "tbs.dll"), "testdata/tbs.c", "-lws2_32"); err != nil {
		t.Fatal(err)
	}
	program := func(i int) string { return strings.ReplaceAll(suites[i].folder, "/", "-") + ".exe" }
	builds := make([]func() error, len(suites))
	for i, suite := range suites {
		builds[i] = sync.OnceValue(func() error {
			return build(t.Context(), "go", "test", "-c", "-o", filepath.Join(work, program(i)), "../../"+suite.folder)
		})
	}
	for i, suite := range suites {
		t.Run(suite.folder, func(t *testing.T) {
			if err := builds[i](); err != nil {
				t.Fatal(err)
			}
			if i+1 < len(builds) {
				go builds[i+1]() // while this one runs
			}
			args := append([]string{root, work, repository, suite.folder, `Z:\work\` + program(i), "-test.v", "-test.timeout=5m"}, suite.flags...)
			out, err := exec.CommandContext(t.Context(), filepath.Join(repository, ".ci", "in-wine"), args...).CombinedOutput()
			report(t, out, suite.passes, suite.skips)
			if err != nil {
				t.Errorf("%s: %v", program(i), err)
			}
		})
	}
}

// build runs a compiler, for Windows and without cgo.
func build(ctx context.Context, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}

var ending = regexp.MustCompile(`^( *)--- (PASS|FAIL|SKIP): (\S+) `)

// report logs what tests printed that did not pass, and counts those that did and those that were skipped.
func report(t *testing.T, out []byte, passes, skips int) {
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
	if counts["PASS"] < passes || counts["SKIP"] > skips {
		t.Errorf("%s: want %d at the least to pass, and %d at the most to be skipped", summary, passes, skips)
	}
}
