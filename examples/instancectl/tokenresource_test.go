// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// startWithResource starts the reference servers with a protected resource.
func startWithResource(t *testing.T, change func(*authserver.Config)) (s servers, resource string) {
	t.Helper()
	s = startServers(t, func(cfg *authserver.Config) {
		cfg.Resource = &authserver.ResourceConfig{Identifier: "/resource", Challenges: &authserver.ChallengeConfig{Endpoint: true}}
		if change != nil {
			change(cfg)
		}
	})
	return s, s.Issuer + "/resource"
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

// A resource that hangs up on every connection that is used again gets every
// request twice.
func TestTokenResourceHangsUp(t *testing.T) {
	s := startServers(t, nil)
	var calls atomic.Int64
	var known sync.Map // connections
	resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if _, used := known.LoadOrStore(r.RemoteAddr, true); used {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path != "/api" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer resource.Close()
	lines := tokenLines(t, ok(t, s.token("-store", "soft", "-self", s.self, "-n", "4", "-resource", resource.URL+"/api")...))
	if calls.Load() <= 5 || sum(lines) != s.Requests()+int(calls.Load()) {
		t.Errorf("lines %+v, %d requests and %d calls", lines, s.Requests(), calls.Load())
	}
}

// Three requests for the token and three for the call when cold (metadata,
// challenge, request), one and one when warm.
func TestTokenResourceSends(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		for name, tt := range map[string]struct {
			change    func(*authserver.Config)
			flags     []string
			tokenType string
		}{
			"bearer": {nil, nil, "Bearer"},
			"DPoP": {func(cfg *authserver.Config) {
				cfg.DPoPNonces, cfg.Resource.DPoPNonces, cfg.Resource.DPoPRequired = true, true, true
			}, []string{"-dpop"}, "DPoP"},
			"combined": {func(cfg *authserver.Config) {
				cfg.Clients[0].Method = authserver.MethodDPoP
				cfg.Resource.Methods = []string{authserver.MethodDPoP}
			}, []string{"-method", "dpop"}, "DPoP"},
		} {
			t.Run(name, func(t *testing.T) {
				s, resource := startWithResource(t, tt.change)
				lines := tokenLines(t, ok(t, s.token(append(tt.flags, "-store", store, "-self", s.self, "-n", "3", "-resource", resource)...)...))
				var sends []int
				for _, line := range lines {
					sends = append(sends, line.Sends)
					if line.TokenType != tt.tokenType {
						t.Errorf("line %+v", line)
					}
				}
				if !slices.Equal(sends, []int{6, 2, 2}) || s.Requests() != 10 {
					t.Errorf("sends %v, the server has seen %d requests", sends, s.Requests())
				}
			})
		}
	})
}

func TestTokenResourceConcurrent(t *testing.T) {
	s, resource := startWithResource(t, func(cfg *authserver.Config) { cfg.Resource.Challenges.SingleUse = true })
	lines := tokenLines(t, ok(t, s.token("-store", "soft", "-self", s.self, "-n", "9", "-c", "3", "-resource", resource)...))
	if len(lines) != 9 || sum(lines) != s.Requests() {
		t.Errorf("%d lines with %d sends, the server has seen %d requests", len(lines), sum(lines), s.Requests())
	}
}

func TestTokenResourceRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*authserver.Config)
		path   string
		want   string
	}{
		"no token for it":   {nil, "/other", "invalid_target"},
		"bound tokens only": {func(cfg *authserver.Config) { cfg.Resource.DPoPRequired = true }, "", "metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			s, resource := startWithResource(t, tt.change)
			r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-resource", resource+tt.path)...)
			if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != tt.want || lines[0].Sends != s.Requests() {
				t.Errorf("status %d, lines %+v, want %s and %d sends", r.status, lines, tt.want, s.Requests())
			}
		})
	}
}

// What the resource gives as reason is for stderr, unless it may be what it was
// sent.
func TestTokenResourceReason(t *testing.T) {
	s := startServers(t, nil)
	for reason, want := range map[string]string{
		"insufficient_scope":                      "resource answered 401 Unauthorized (insufficient_scope)",
		"eyJ" + strings.Repeat("a", 70) + ".b.c2": "resource answered 401 Unauthorized\"",
	} {
		resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="x", error="`+reason+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-resource", resource.URL)...)
		resource.Close()
		if lines := tokenLines(t, r); r.status != 1 || lines[0].Error != "resource_401" || !strings.Contains(r.stderr, want) {
			t.Errorf("status %d, lines %+v, stderr %s", r.status, lines, r.stderr)
		}
	}
}
