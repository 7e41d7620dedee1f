// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// A mutant is a line that is broken, and the test that notices.
type mutant struct {
	number  int    // of its line in the list
	file    string // slash-separated, from the module's root
	above   string // a line above it; "": its text occurs once
	line    string
	instead string // "": the line is taken away
	test    string
}

func (m mutant) String() string {
	return fmt.Sprintf("list.txt:%d %s: %q for %q, %s", m.number, m.file, m.instead, m.line, m.test)
}

// folder is that of the package.
func (m mutant) folder() string { return "./" + path.Dir(m.file) }

// parse reads a list. The file of a mutant is that of the one before, if it names none.
func parse(text string) ([]mutant, error) {
	var mutants []mutant
	var m mutant
	file := ""
	for i, line := range strings.Split(text, "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch mark {
		case "", "#":
			continue
		case "=":
			file, m = rest, mutant{}
			continue
		case ">":
			m.above = rest
			continue
		case "-":
			m.line, m.number = rest, i+1
			continue
		case "+":
			m.instead = rest
			continue
		case "@":
			m.file, m.test = file, rest
		default:
			return nil, fmt.Errorf("line %d: %q is no mark", i+1, mark)
		}
		if m.file == "" || m.line == "" || m.test == "" || m.line == m.instead {
			return nil, fmt.Errorf("line %d ends a mutant that has no file, line or test, or changes nothing", i+1)
		}
		mutants, m = append(mutants, m), mutant{}
	}
	if m != (mutant{}) {
		return nil, errors.New("the last mutant names no test")
	}
	return mutants, nil
}

// apply returns source with the mutant's line changed.
func (m mutant) apply(source string) (string, error) {
	lines := strings.Split(source, "\n")
	at, found, reached := -1, 0, m.above == ""
	for i, line := range lines {
		line = strings.TrimSpace(line)
		switch {
		case !reached:
			reached = line == m.above
		case line == m.line && (m.above == "" || found == 0):
			at = i
			found++
		}
	}
	switch {
	case !reached:
		return "", fmt.Errorf("the line %q above it is gone", m.above)
	case found == 0:
		return "", errors.New("the line is gone: find its successor, or take the mutant out if there is none")
	case found > 1:
		return "", fmt.Errorf("the line occurs %d times: name one above it", found)
	}
	indentation := lines[at][:len(lines[at])-len(strings.TrimLeft(lines[at], "\t"))]
	lines[at] = indentation + m.instead
	return strings.Join(lines, "\n"), nil
}
