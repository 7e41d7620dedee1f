// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// current is the version of oidc-provider that implements the current draft.
const current = "9.13.3"

// provider is a running oidc-provider.
type provider struct {
	// Issuer is its issuer identifier, http on a loopback port.
	Issuer string
}

// startProvider runs server.mjs with the given version of oidc-provider, which
// trusts the attestations that the attester's key verifies, until the test ends.
func startProvider(t *testing.T, version string, attester jose.JSONWebKey) *provider {
	t.Helper()
	node, err := install()
	if err != nil {
		missing(t, err)
	}
	config, err := json.Marshal(map[string]any{"version": version, "attesterKey": attester.Public()})
	if err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), node, "server.mjs")
	stderr := new(strings.Builder) // read only after Wait
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A server that does not end by itself is killed.
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the test's context has ended, and stdin is closed
		if err := cmd.Wait(); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Errorf("server.mjs: %v", err)
		}
		if t.Failed() {
			t.Logf("server.mjs said:\n%s", stderr)
		}
	})

	if _, err := fmt.Fprintf(stdin, "%s\n", config); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("server.mjs did not start: %v", err)
	}
	p := new(provider)
	if err := json.Unmarshal(line, p); err != nil {
		t.Fatalf("server.mjs printed %q: %v", line, err)
	}
	return p
}

// Requests returns how often the server was asked for what since it started:
// "POST /token" to 2, and so on.
func (p *provider) Requests(t *testing.T) map[string]int {
	t.Helper()
	resp, err := http.Get(p.Issuer + "/__counts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	counts := map[string]int{}
	if err := json.NewDecoder(resp.Body).Decode(&counts); err != nil {
		t.Fatal(err)
	}
	return counts
}

// install brings node_modules up to date with package-lock.json and returns
// the Node.js to run the server with.
var install = sync.OnceValues(func() (node string, err error) {
	node, err = findNode()
	if err != nil || !stale() {
		return node, err
	}
	npm := exec.Command("npm", "ci")
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return node, nil
})

// stale reports whether the packages are not those of package-lock.json. npm
// writes the hidden lock file last, so it is missing after an interruption.
func stale() bool {
	installed, err := os.Stat("node_modules/.package-lock.json")
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	locked, lockErr := os.Stat("package-lock.json")
	return err != nil || lockErr != nil || installed.ModTime().Before(locked.ModTime())
}

// findNode returns the first Node.js that oidc-provider runs on: the one in
// $PATH, or the one that .ci/prerequisites put beside this file.
func findNode() (string, error) {
	beside, err := filepath.Abs(".node/node_modules/.bin/node")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"node", beside} {
		if exec.Command(name, "-e", "process.exit(URL.parse ? 0 : 1)").Run() == nil {
			return name, nil
		}
	}
	return "", errors.New("Node.js 20.19 or newer is needed: run .ci/prerequisites interop")
}

// missing skips the test for want of a tool, or fails it where nothing may be
// missing.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}
