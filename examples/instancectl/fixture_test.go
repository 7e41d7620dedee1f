// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
)

const clientID = "abca-client"

// result is what a command line came to.
type result struct {
	status         int
	stdout, stderr string
}

// instancectl runs a command line. Whatever it prints, it prints no JWT.
func instancectl(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	status := run(t.Context(), args, &stdout, &stderr)
	exampletest.NoJWT(t, stdout.String()+stderr.String())
	return result{status, stdout.String(), stderr.String()}
}

// ok runs a command line that must succeed.
func ok(t *testing.T, args ...string) result {
	t.Helper()
	r := instancectl(t, args...)
	if r.status != 0 {
		t.Fatalf("instancectl %s: status %d: %s%s", strings.Join(args, " "), r.status, r.stdout, r.stderr)
	}
	return r
}

// servers are the reference servers, with an instance that may attest itself.
type servers struct {
	*reference.Servers
	self string // file for -self
}

func startServers(t *testing.T, change func(*authserver.Config)) servers {
	t.Helper()
	self, public := newSelf(t)
	quiet := slog.New(slog.DiscardHandler)
	cfg := authserver.Config{
		Clients:      []authserver.Client{{ID: clientID, Scopes: []string{"read"}}},
		Challenges:   &authserver.ChallengeConfig{Endpoint: true},
		AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}},
		Logger:       quiet,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := reference.Start(reference.Config{
		Attester:   attester.Config{Clients: []string{clientID}, Logger: quiet},
		AuthServer: cfg,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return servers{s, self}
}

// newSelf makes the private JWK of an instance that attests itself.
func newSelf(t *testing.T) (file string, public jose.JSONWebKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "self-1"}
	content, err := json.Marshal(jwk)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "self.jwk", string(content)), jwk.Public()
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readPrivate(t *testing.T, path string) string {
	t.Helper()
	privatefiletest.Check(t, path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// token returns a token command line for the servers, and more flags.
func (s servers) token(more ...string) []string {
	return append([]string{"token", "-issuer", s.Issuer, "-client-id", clientID, "-json"}, more...)
}

// printed is a line of token -json.
type printed struct {
	TokenType string `json:"token_type"`
	ExpiresIn *int   `json:"expires_in"`
	Error     string `json:"error"`
	Sends     int    `json:"sends"`
}

func tokenLines(t *testing.T, r result) []printed {
	t.Helper()
	return exampletest.Lines[printed](t, r.stdout)
}

func sum(lines []printed) int {
	n := 0
	for _, line := range lines {
		n += line.Sends
	}
	return n
}

// noTPM returns a -store where there is no TPM.
func noTPM(t *testing.T) string { return filepath.Join(t.TempDir(), "no-such-tpm") }

// needsLinks skips a test on Windows where it can make no symbolic links: those take a
// privilege, and Wine has none.
func needsLinks(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "windows" {
		return
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, err := os.Readlink(link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

// notOnWindows skips a test of what Windows does not have.
func notOnWindows(t *testing.T, what string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no " + what)
	}
}
