// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A token of another type than was asked for is refused, whatever the grant.
// The refresh token that came with it may be the only one that is left.
func TestTokenType(t *testing.T) {
	self, _ := newSelf(t)
	key := makeKey(t)
	for name, tt := range map[string]struct {
		answered string
		flags    []string
		ok       bool
	}{
		"bearer":                  {"bearer", nil, true},
		"bearer for -dpop":        {"Bearer", []string{"-dpop"}, false},
		"bearer for -method dpop": {"Bearer", []string{"-method", "dpop"}, false},
		"DPoP":                    {"DPoP", nil, false},
		"DPoP for -dpop":          {"DPoP", []string{"-dpop"}, true},
		"DPoP for -method dpop":   {"dpop", []string{"-method", "dpop"}, true},
		"MAC":                     {"mac", nil, false},
		"none":                    {"", nil, false},
		"none for -dpop":          {"", []string{"-dpop"}, false},
		"for a terminal":          {"Bearer\x1b[2J\ntoken 2: Bearer", nil, false},
	} {
		for _, grant := range []string{"client_credentials", "refresh_token"} {
			t.Run(name+"/"+grant, func(t *testing.T) {
				body, err := json.Marshal(map[string]any{
					"access_token": "access", "token_type": tt.answered, "refresh_token": "new-refresh", "expires_in": 60,
				})
				if err != nil {
					t.Fatal(err)
				}
				server := startHostile(t, map[string]http.HandlerFunc{"/token": answers(http.StatusOK, string(body))})
				refresh, out := writeFile(t, "refresh", "old-refresh"), filepath.Join(t.TempDir(), "out")
				args := server.token(slices.Concat(key, tt.flags, []string{"-self", self, "-grant", grant, "-refresh", refresh, "-out", out})...)
				r := instancectl(t, args...)

				lines := tokenLines(t, r)
				if len(lines) != 1 || int64(lines[0].Sends) != server.requests.Load() {
					t.Fatalf("lines %+v, %d requests", lines, server.requests.Load())
				}
				_, err = os.Stat(out)
				switch {
				case tt.ok && (r.status != 0 || lines[0].TokenType != tt.answered || err != nil):
					t.Errorf("status %d, lines %+v, -out: %v", r.status, lines, err)
				case !tt.ok && (r.status != 1 || lines[0].Error != "token_type" || lines[0].TokenType != "" || err == nil):
					t.Errorf("status %d, lines %+v, -out: %v", r.status, lines, err)
				}
				if got := readPrivate(t, refresh); got != "new-refresh" {
					t.Errorf("-refresh has %q", got)
				}

				text := instancectl(t, slices.DeleteFunc(args, func(arg string) bool { return arg == "-json" })...)
				if strings.ContainsRune(text.stdout, '\x1b') || strings.Count(text.stdout, "\n") != 1 {
					t.Errorf("printed %q", text.stdout)
				}
			})
		}
	}
}
