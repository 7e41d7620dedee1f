// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What becomes of a mutant.
const (
	killed   = "killed"
	survived = "survived"
)

type result struct {
	mutant  mutant
	verdict string
	detail  string // which tests failed, when all were run
	err     error  // why it could not be tried
}

// A bench is where mutants are tried.
type bench struct {
	root string
	dir  string // for changed files
	find bool
}

// mutated returns the changed source of a mutant's file.
func (b *bench) mutated(m mutant) (string, error) {
	source, err := os.ReadFile(filepath.Join(b.root, filepath.FromSlash(m.file)))
	if err != nil {
		return "", err
	}
	return m.apply(string(source))
}

// healthy sees to it that the tests pass without any mutant: one that fails anyway
// would kill all.
func (b *bench) healthy(ctx context.Context, results []result, parallel int) {
	byFolder := make(map[string][]*result)
	for i := range results {
		if results[i].err == nil {
			folder := results[i].mutant.folder()
			byFolder[folder] = append(byFolder[folder], &results[i])
		}
	}
	folders := make([]result, 0, len(byFolder))
	for folder := range byFolder {
		folders = append(folders, result{detail: folder})
	}
	each(parallel, folders, func(r *result) {
		var names []string
		for _, of := range byFolder[r.detail] {
			name, _, _ := strings.Cut(of.mutant.test, "/")
			names = append(names, name)
		}
		slices.Sort(names)
		output, err := b.test(ctx, r.detail, "^("+strings.Join(slices.Compact(names), "|")+")$", "")
		for _, of := range byFolder[r.detail] {
			if !regexp.MustCompile(`(?m)^\s*--- PASS: ` + regexp.QuoteMeta(strings.ReplaceAll(of.mutant.test, " ", "_")) + ` \(`).MatchString(output) {
				of.err = fmt.Errorf("the test does not pass without it: %v", err)
			}
		}
	})
}

// try runs the test of a mutant, or all of its package.
func (b *bench) try(ctx context.Context, m mutant) (verdict, detail string, err error) {
	source, err := b.mutated(m)
	if err != nil {
		return "", "", err
	}
	changed := filepath.Join(b.dir, fmt.Sprintf("%d.go", m.number))
	if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
		return "", "", err
	}
	original, err := filepath.Abs(filepath.Join(b.root, filepath.FromSlash(m.file)))
	if err != nil {
		return "", "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", "", err
	}
	overlayFile := filepath.Join(b.dir, fmt.Sprintf("%d.json", m.number))
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return "", "", err
	}
	run := ""
	if !b.find {
		var parts []string
		for part := range strings.SplitSeq(m.test, "/") {
			parts = append(parts, "^"+regexp.QuoteMeta(strings.ReplaceAll(part, " ", "_"))+"$")
		}
		run = strings.Join(parts, "/")
	}
	output, err := b.test(ctx, m.folder(), run, overlayFile)
	switch {
	case err == nil:
		return survived, "", nil
	case strings.Contains(output, "[build failed]") || strings.Contains(output, "[setup failed]"):
		return "", "", fmt.Errorf("does not build:\n%s", output)
	case strings.Contains(output, "--- FAIL: ") || strings.Contains(output, "panic: "):
		if b.find {
			for _, failed := range regexp.MustCompile(`(?m)^\s*--- FAIL: (.+) \(`).FindAllStringSubmatch(output, -1) {
				detail += "\n\t" + failed[1]
			}
		}
		return killed, detail, nil
	default:
		return "", "", errors.Join(err, errors.New(output))
	}
}

// test runs tests of a package; no run means all.
func (b *bench) test(ctx context.Context, folder, run, overlay string) (output string, err error) {
	// Most of the time goes into compiling and linking: no optimization, no symbols.
	args := []string{"test", "-count=1", "-vet=off", "-v", "-gcflags=-N -l -dwarf=false", "-ldflags=-s -w", "-run", run}
	switch {
	case overlay == "" || b.find:
		args = append(args, "-timeout=5m")
	default:
		args = append(args, "-timeout=1m", "-failfast") // one that hangs has been noticed, too
	}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, folder)...)
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	return string(out), err
}
