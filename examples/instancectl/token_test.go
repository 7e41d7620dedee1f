package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// Cold three requests (metadata, challenge, token), warm one.
func TestTokenSends(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		for name, attester := range map[string]func(servers) []string{
			"self": func(s servers) []string { return []string{"-self", s.self} },
			"pull": func(s servers) []string { return []string{"-attester", s.AttesterURL} },
		} {
			t.Run(name, func(t *testing.T) {
				s := startServers(t, nil)
				r := ok(t, s.token(append(attester(s), "-store", store, "-n", "3")...)...)
				lines := tokenLines(t, r)
				var sends []int
				for _, line := range lines {
					sends = append(sends, line.Sends)
					if line.TokenType != "Bearer" || line.ExpiresIn == nil || *line.ExpiresIn != 300 || line.Error != "" {
						t.Errorf("line %+v", line)
					}
				}
				if !slices.Equal(sends, []int{3, 1, 1}) || s.Requests() != 5 {
					t.Errorf("sends %v, the server has seen %d requests", sends, s.Requests())
				}
			})
		}
	})
}

func TestTokenPush(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		s := startServers(t, nil)
		place := []string{"-store", store, "-keys", filepath.Join(t.TempDir(), "keys"), "-name", "k"}
		file := writeFile(t, "attestation", "not yet")
		lines := tokenLines(t, instancectl(t, s.token(append(place, "-attestation", file)...)...))
		if len(lines) != 1 || lines[0].Error != "not_found" || s.Requests() != 0 {
			t.Errorf("before there is a key: %+v, %d requests", lines, s.Requests())
		}
		shown := exampletest.Lines[keyView](t, ok(t, append([]string{"key", "create", "-json"}, place...)...).stdout)
		attestation, err := s.Attester.Issue(clientID, shown[0].JWK.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(attestation+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		lines = tokenLines(t, ok(t, s.token(append(place, "-attestation", file)...)...))
		if len(lines) != 1 || lines[0].Sends != 3 {
			t.Errorf("lines %+v", lines)
		}
	})
}

// What several tokens wait for counts once, so the sum is the server's count.
func TestTokenConcurrent(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		s := startServers(t, nil)
		lines := tokenLines(t, ok(t, s.token("-store", store, "-self", s.self, "-n", "12", "-c", "4")...))
		if len(lines) != 12 || sum(lines) != 14 || s.Requests() != 14 {
			t.Errorf("%d lines with %d sends, the server has seen %d requests", len(lines), sum(lines), s.Requests())
		}
	})
}

func TestTokenSingleUseChallenges(t *testing.T) {
	s := startServers(t, func(cfg *authserver.Config) { cfg.Challenges.SingleUse = true })
	lines := tokenLines(t, ok(t, s.token("-store", "soft", "-self", s.self, "-n", "8", "-c", "4")...))
	if len(lines) != 8 || sum(lines) != s.Requests() {
		t.Errorf("%d lines with %d sends, the server has seen %d requests", len(lines), sum(lines), s.Requests())
	}
}

func TestTokenText(t *testing.T) {
	s := startServers(t, nil)
	args := slices.DeleteFunc(s.token("-store", "soft", "-self", s.self, "-n", "2"), func(arg string) bool { return arg == "-json" })
	want := "token 1: Bearer token, expires in 300 s (requests: 3)\ntoken 2: Bearer token, expires in 300 s (requests: 1)\n"
	if r := ok(t, args...); r.stdout != want {
		t.Errorf("got %s", r.stdout)
	}
	want = "token 1: failed: invalid_scope (requests: 3)\n"
	if r := instancectl(t, append(args, "-n", "1", "-scope", "admin")...); r.status != 1 || r.stdout != want {
		t.Errorf("status %d: %s", r.status, r.stdout)
	}
}

func TestTokenDPoP(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		flags  []string
	}{
		"beside":   {authserver.MethodPoP, []string{"-dpop"}},
		"combined": {authserver.MethodDPoP, []string{"-method", "dpop"}},
		"auto":     {authserver.MethodDPoP, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServers(t, func(cfg *authserver.Config) { cfg.Clients[0].Method = tt.method })
			lines := tokenLines(t, ok(t, s.token(append(tt.flags, "-store", "soft", "-self", s.self)...)...))
			if len(lines) != 1 || lines[0].TokenType != "DPoP" || lines[0].Sends != s.Requests() {
				t.Errorf("lines %+v, %d requests", lines, s.Requests())
			}
		})
	}
}

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
		"hanging server":      {[]string{"-self", s.self, "-issuer", hanging.URL, "-timeout", "50ms"}, "timeout", 1}, // they wait for the same
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
			server := hostile(t, tt.body)
			r := instancectl(t, "token", "-store", "soft", "-self", self, "-issuer", server, "-client-id", clientID, "-json")
			lines := tokenLines(t, r)
			if r.status != 1 || len(lines) != 1 || lines[0].Error != tt.want {
				t.Errorf("status %d, lines %+v, want %q", r.status, lines, tt.want)
			}
		})
	}
}

// hostile is a server that answers token requests with 400 and body.
func hostile(t *testing.T, body string) (issuer string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuer := "http://" + r.Host
		if r.Method == http.MethodGet {
			fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q}`, issuer, issuer+"/token")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestTokenOut(t *testing.T) {
	s := startServers(t, nil)
	out := filepath.Join(t.TempDir(), "token")
	ok(t, s.token("-store", "soft", "-self", s.self, "-n", "2", "-out", out)...)
	first := readPrivate(t, out)
	if parts := strings.Split(first, "."); len(parts) != 3 { // the reference server's are JWTs
		t.Errorf("%d bytes that are no access token", len(first))
	}
	ok(t, s.token("-store", "soft", "-self", s.self, "-out", out)...)
	if readPrivate(t, out) == first {
		t.Error("the file was not replaced")
	}
	if r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-scope", "admin", "-out", out)...); r.status != 1 {
		t.Errorf("status %d", r.status)
	}
	if readPrivate(t, out) == "" {
		t.Error("a run without a token has emptied the file")
	}
}

// A device file is written to, not replaced.
func TestTokenOutToDevice(t *testing.T) {
	s := startServers(t, nil)
	out := filepath.Join(t.TempDir(), "null")
	if err := os.Symlink(os.DevNull, out); err != nil {
		t.Skip(err)
	}
	ok(t, s.token("-store", "soft", "-self", s.self, "-out", out)...)
	if target, err := os.Readlink(out); err != nil || target != os.DevNull {
		t.Errorf("the link was replaced: %q, %v", target, err)
	}
}

func TestTokenCA(t *testing.T) {
	self, public := newSelf(t)
	var requests atomic.Int64
	server := httptest.NewUnstartedServer(nil)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	as, err := authserver.New(authserver.Config{
		Issuer:       "https://" + server.Listener.Addr().String(),
		Clients:      []authserver.Client{{ID: clientID}},
		Challenges:   &authserver.ChallengeConfig{Endpoint: true},
		AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}},
		Logger:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		as.ServeHTTP(w, r)
	})
	server.StartTLS()
	defer server.Close()
	args := []string{"token", "-store", "soft", "-self", self, "-issuer", server.URL, "-client-id", clientID, "-n", "6", "-c", "3", "-json"}

	r := instancectl(t, args...)
	if lines := tokenLines(t, r); r.status != 1 || lines[0].Error != "unreachable" || sum(lines) != 0 {
		t.Errorf("without -ca: status %d, %+v", r.status, lines)
	}
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if lines := tokenLines(t, ok(t, append(args, "-ca", ca)...)); len(lines) != 6 || sum(lines) != int(requests.Load()) {
		t.Errorf("with -ca: %+v, the server has seen %d requests", lines, requests.Load())
	}
}

func TestTokenResource(t *testing.T) {
	s := startServers(t, nil)
	var calls, authorized atomic.Int64
	resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		switch {
		case r.URL.Path == "/secret":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path != "/api":
			w.WriteHeader(http.StatusNotFound)
		case strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ"):
			authorized.Add(1)
		}
	}))
	defer resource.Close()
	lines := tokenLines(t, ok(t, s.token("-store", "soft", "-self", s.self, "-n", "2", "-resource", resource.URL+"/api")...))
	if len(lines) != 2 || authorized.Load() != 2 || int64(sum(lines)) != int64(s.Requests())+calls.Load() {
		t.Errorf("lines %+v, %d calls with a token, %d requests and %d calls", lines, authorized.Load(), s.Requests(), calls.Load())
	}
	r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-resource", resource.URL+"/secret")...)
	if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != "resource_403" {
		t.Errorf("status %d, lines %+v", r.status, lines)
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
