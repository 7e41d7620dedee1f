// SPDX-License-Identifier: Apache-2.0

// Package licensing_test holds that each source file names its license, so that
// whoever copies one file, or scans the tree, need not ask.
package licensing_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const identifier = "SPDX-License-Identifier: Apache-2.0"

// What begins a comment, by a file's extension or, without one, its name.
var comments = map[string]string{
	".go": "//", ".mjs": "//",
	".sh": "#", ".py": "#", ".yml": "#", ".yaml": "#", ".service": "#", "Makefile": "#",
}

// Folders that are not ours, or hold what tests read as others wrote it.
var skipped = []string{".git", "node_modules", ".node", ".venv", ".kernel", "testdata"}

func TestEachSourceFileNamesItsLicense(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(skipped, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := entry.Name()
		comment := comments[name]
		if ext := filepath.Ext(name); comment == "" {
			comment = comments[ext]
		}
		script := bytes.HasPrefix(content, []byte("#!"))
		if script && comment == "" {
			comment = "#"
		}
		if bytes.HasPrefix(content, []byte("\x7fELF")) || bytes.HasPrefix(content, []byte("MZ")) {
			t.Errorf("%s is a program, not its source", path)
		}
		if comment == "" {
			return nil
		}
		files++
		if script {
			_, content, _ = bytes.Cut(content, []byte("\n"))
		}
		if line, _, _ := strings.Cut(string(content), "\n"); line != comment+" "+identifier {
			t.Errorf("%s lacks the line %q at its top", path, comment+" "+identifier)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 600 {
		t.Errorf("only %d source files found", files)
	}
}
