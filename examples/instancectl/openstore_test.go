// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// TestNoFolder: no command but those that make a key makes its folder: one that was
// misspelt would look like an empty one, and root's would be closed to the program that
// it is for.
func TestNoFolder(t *testing.T) {
	self, _ := newSelf(t)
	attestation := writeFile(t, "attestation", "x.y.z")
	client := []string{"-issuer", "http://127.0.0.1:1", "-client-id", "c"}
	exampletest.EachStore(t, func(t *testing.T, store string) {
		commands := map[string]int{ // and their exit status
			"key list": 0, "key delete -name k": 0, "key show -name k": 1, "evidence -name k": 1,
			"register -self " + self + " " + strings.Join(client, " "):                                                           1,
			"token -attestation " + attestation + " " + strings.Join(client, " "):                                                1,
			"token -grant refresh_token -refresh " + writeFile(t, "r", "r") + " -self " + self + " " + strings.Join(client, " "): 1,
			"attest -attestation " + attestation + " " + strings.Join(client, " "):                                               1,
		}
		if store == "simulator" {
			commands["key unpersist -name k"] = 1
		}
		for command, status := range commands {
			keys := filepath.Join(t.TempDir(), "keys")
			r := instancectl(t, append(strings.Fields(command), "-store", store, "-keys", keys)...)
			if r.status != status || r.stdout != "" && !strings.HasPrefix(command, "token") || !strings.Contains(r.stderr, "-keys is not there") {
				t.Errorf("%s: status %d, %s%s", command, r.status, r.stdout, r.stderr)
			}
			if _, err := os.Stat(keys); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s has made the folder: %v", command, err)
			}
		}
		if len(commands) < 8 {
			t.Errorf("%d commands", len(commands))
		}
	})
}
