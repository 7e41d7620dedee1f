// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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
	if lines := tokenLines(t, r); r.status != 1 || lines[0].Error != "unknown_ca" || sum(lines) != 0 {
		t.Errorf("without -ca: status %d, %+v", r.status, lines)
	}
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if lines := tokenLines(t, ok(t, append(args, "-ca", ca)...)); len(lines) != 6 || sum(lines) != int(requests.Load()) {
		t.Errorf("with -ca: %+v, the server has seen %d requests", lines, requests.Load())
	}
}
