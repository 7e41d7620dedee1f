// SPDX-License-Identifier: Apache-2.0

// Package exampletest is what the tests of the example programs have in common.
package exampletest

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
)

// EachStore runs a test with -store soft and with -store simulator. Without the
// simulator that part is skipped, or fails where the environment variable CI is
// set.
func EachStore(t *testing.T, f func(t *testing.T, store string)) {
	t.Helper()
	t.Run("soft", func(t *testing.T) { f(t, "soft") })
	t.Run("simulator", func(t *testing.T) {
		NeedSimulator(t)
		f(t, "simulator")
	})
}

// NeedSimulator skips a test that needs the TPM simulator, if there is none, or
// fails it where the environment variable CI is set.
func NeedSimulator(t *testing.T) {
	t.Helper()
	switch {
	case storeflag.SimulatorBuiltIn:
	case os.Getenv("CI") != "":
		t.Fatal(storeflag.ErrNoSimulator)
	default:
		t.Skip(storeflag.ErrNoSimulator)
	}
}

// Lines decodes an output of one JSON object a line.
func Lines[T any](t *testing.T, output string) []T {
	t.Helper()
	var lines []T
	for line := range strings.Lines(output) {
		var value T
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Fatalf("output line %q: %v", line, err)
		}
		lines = append(lines, value)
	}
	return lines
}

// jwt is what every JWT begins with, since its header begins with {".
var jwt = regexp.MustCompile(`(^|[^A-Za-z0-9_-])eyJ[A-Za-z0-9_-]+`)

// NoJWT fails the test if an output contains a JWT or a part of one.
func NoJWT(t *testing.T, output string) {
	t.Helper()
	if found := jwt.FindString(output); found != "" {
		t.Errorf("the output contains a JWT: %.20s…", found)
	}
}
