// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// A failure does not stop the run, and the error is the OAuth code or the
// sentinel's word.
func TestTokenErrors(t *testing.T) {
	s := startServers(t, nil)
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()
	stranger, _ := newSelf(t)
	attestation := writeFile(t, "attestation", "not.a.jwt")
	keys := []string{"-keys", filepath.Join(t.TempDir(), "keys"), "-name", "k"}
	ok(t, append([]string{"key", "create", "-store", "soft"}, keys...)...)

	for name, tt := range map[string]struct {
		args  []string
		want  string
		sends int // in all
	}{
		"scope":               {[]string{"-self", s.self, "-scope", "admin"}, "invalid_scope", 4},
		"unknown attester":    {[]string{"-self", stranger}, "invalid_client_attestation", 4},
		"no server":           {[]string{"-self", s.self, "-issuer", "http://" + closedPort(t)}, "unreachable", 0},
		"no metadata":         {[]string{"-self", s.self, "-issuer", s.Issuer + "/tenant"}, "metadata", 4},
		"hanging server":      {[]string{"-self", s.self, "-issuer", hanging.URL, "-timeout", "50ms"}, "timeout", 1}, // the second joins the request that the first has given up
		"no attester":         {[]string{"-attester", "http://" + closedPort(t)}, "attester_unavailable", 1},
		"invalid attestation": {append(keys, "-attestation", attestation), "invalid_attestation", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := instancectl(t, s.token(append([]string{"-store", "soft", "-n", "2"}, tt.args...)...)...)
			lines := tokenLines(t, r)
			if r.status != 1 || len(lines) != 2 || sum(lines) != tt.sends {
				t.Fatalf("status %d, lines %+v, want %d sends", r.status, lines, tt.sends)
			}
			for _, line := range lines {
				if line.Error != tt.want || line.TokenType != "" || line.ExpiresIn != nil {
					t.Errorf("line %+v, want error %q", line, tt.want)
				}
			}
			if strings.Count(r.stderr, "token failed") != 2 {
				t.Errorf("stderr does not explain both: %s", r.stderr)
			}
		})
	}
}

// A key that cannot be opened is the error of every token.
func TestTokenKeyLost(t *testing.T) {
	exampletest.NeedSimulator(t)
	s := startServers(t, nil)
	dir := t.TempDir()
	place := []string{"-store", "simulator", "-keys", dir, "-name", "k"}
	ok(t, append([]string{"key", "create"}, place...)...)
	if err := os.Remove(filepath.Join(dir, ".simulator-seed")); err != nil {
		t.Fatal(err)
	}
	r := instancectl(t, s.token(append(place, "-self", s.self, "-n", "2")...)...)
	lines := tokenLines(t, r)
	if r.status != 1 || len(lines) != 2 || lines[0].Error != "key_lost" || lines[1].Error != "key_lost" || s.Requests() != 0 {
		t.Errorf("status %d, lines %+v, %d requests", r.status, lines, s.Requests())
	}
	if !strings.Contains(r.stderr, "enrol") {
		t.Errorf("stderr does not say what to do: %s", r.stderr)
	}
}

// What a server puts into its error code may be what it was sent.
func TestTokenHostileErrorCode(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"JWT":          {`{"error":"eyJhbGciOiJFUzI1NiJ9.` + strings.Repeat("a", 60) + `.c2ln"}`, "unprintable_error_code"},
		"line break":   {`{"error":"a\nb"}`, "unprintable_error_code"},
		"no code":      {`<html>eyJhbGciOiJFUzI1NiJ9</html>`, "http_400"},
		"empty object": {`{}`, "http_400"},
	} {
		t.Run(name, func(t *testing.T) {
			self, _ := newSelf(t)
			server := startHostile(t, map[string]http.HandlerFunc{"/token": answers(http.StatusBadRequest, tt.body)})
			r := instancectl(t, server.token("-store", "soft", "-self", self)...)
			lines := tokenLines(t, r)
			if r.status != 1 || len(lines) != 1 || lines[0].Error != tt.want {
				t.Errorf("status %d, lines %+v, want %q", r.status, lines, tt.want)
			}
		})
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// What ends a request in the middle of an answer is told apart from an answer
// that is of no use, at every endpoint and with every grant.
func TestTokenInterrupted(t *testing.T) {
	self, _ := newSelf(t)
	key := makeKey(t)
	refresh := writeFile(t, "refresh", "refresh-token")
	const soon = "300ms"
	for name, tt := range map[string]struct {
		endpoint string
		does     http.HandlerFunc
		timeout  string
		want     string
	}{
		"stalls":              {"/token", stalls(0), soon, "timeout"},
		"stalls in a token":   {"/token", stalls(200), soon, "timeout"},
		"stalls in a refusal": {"/token", stalls(400), soon, "timeout"},
		"challenge stalls":    {"/challenge", stalls(0), soon, "timeout"},
		"stalls in challenge": {"/challenge", stalls(200), soon, "timeout"},
		"cut in a token":      {"/token", cuts(200), "1m", "unreachable"},
		"cut in a refusal":    {"/token", cuts(400), "1m", "unreachable"},
		"cut in a challenge":  {"/challenge", cuts(200), "1m", "unreachable"},
		"no JSON":             {"/token", answers(200, "<html>"), "1m", "failed"},
	} {
		for _, grant := range []string{"client_credentials", "refresh_token"} {
			t.Run(name+"/"+grant, func(t *testing.T) {
				t.Parallel()
				endpoints := map[string]http.HandlerFunc{"/token": answers(500, ""), tt.endpoint: tt.does}
				server := startHostile(t, endpoints)
				r := instancectl(t, server.token(append(key, "-self", self, "-grant", grant, "-refresh", refresh, "-timeout", tt.timeout)...)...)
				lines := tokenLines(t, r)
				if r.status != 1 || len(lines) != 1 || lines[0].Error != tt.want || int64(lines[0].Sends) != server.requests.Load() {
					t.Errorf("status %d, lines %+v, want %s and %d sends", r.status, lines, tt.want, server.requests.Load())
				}
			})
		}
	}
}
