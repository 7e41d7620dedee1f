// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// echoes answers with a format that has in it what a request was sent with.
func echoes(status int, format string, secret func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answers(status, strings.ReplaceAll(format, "$", secret(r)))(w, r)
	}
}

func refreshToken(r *http.Request) string { return r.FormValue("refresh_token") }

// part returns a part of a JWT that was sent in a header field.
func part(header string, number, length int) func(*http.Request) string {
	return func(r *http.Request) string {
		return fmt.Sprintf("%.*s", length, strings.Split(r.Header.Get(header), ".")[number])
	}
}

// What a server was sent does not come back on stdout or stderr, and neither
// does what only a terminal would understand; what explains a refusal does.
func TestTokenEchoes(t *testing.T) {
	self, _ := newSelf(t)
	key := makeKey(t)
	const secret = "rt.Zm9vYmFy"
	plain := func(text string) func(*http.Request) string { return func(*http.Request) string { return text } }
	const code, description = `{"error":"$"}`, `{"error":"invalid_grant","error_description":"what about $?"}`
	for name, tt := range map[string]struct {
		token http.HandlerFunc
		want  string // the error
		shown string // on stderr
	}{
		"code":                       {echoes(400, code, plain("weird code (1)")), "weird code (1)", "400 Bad Request (weird code (1))"},
		"token as code":              {echoes(400, code, refreshToken), hiddenCode, hiddenCode},
		"token in code":              {echoes(400, `{"error":"bad_$"}`, refreshToken), hiddenCode, hiddenCode},
		"code for a terminal":        {echoes(400, code, plain(`\u001b[2J`)), hiddenCode, hiddenCode},
		"attestation's header":       {echoes(400, code, part("OAuth-Client-Attestation", 0, 20)), hiddenCode, hiddenCode},
		"PoP's claims":               {echoes(400, code, part("OAuth-Client-Attestation-PoP", 1, 64)), hiddenCode, hiddenCode},
		"PoP's signature":            {echoes(400, code, part("OAuth-Client-Attestation-PoP", 2, 20)), hiddenCode, hiddenCode},
		"description":                {echoes(400, description, plain("the scope “admin”")), "invalid_grant", "(invalid_grant): what about the scope “admin”?"},
		"token in description":       {echoes(400, description, refreshToken), "invalid_grant", "error=invalid_grant"},
		"PoP in description":         {echoes(400, description, part("OAuth-Client-Attestation-PoP", 2, 86)), "invalid_grant", "(invalid_grant)\""},
		"a part in description":      {echoes(400, description, part("OAuth-Client-Attestation-PoP", 2, 20)), "invalid_grant", "error=invalid_grant"},
		"a JWT that was never sent":  {echoes(400, description, plain("eyJhbGciOiJub25lIn0.e30.")), "invalid_grant", "(invalid_grant)\""},
		"a key that was never sent":  {echoes(400, description, plain(strings.Repeat("0123abcd", 8))), "invalid_grant", "(invalid_grant)\""},
		"description for a terminal": {echoes(400, description, plain(`\u001b[2J`)), "invalid_grant", "(invalid_grant)\""},
		"status line":                {says(400, secret+" \x1b[2J"), "http_400", "400 Bad Request (http_400)"},
		"token_type":                 {echoes(200, `{"access_token":"a","token_type":"$"}`, refreshToken), "token_type", "error=token_type"},
	} {
		t.Run(name, func(t *testing.T) {
			server := startHostile(t, map[string]http.HandlerFunc{"/token": tt.token})
			refresh := writeFile(t, "refresh", secret)
			args := server.token(slices.Concat(key, []string{"-self", self, "-grant", "refresh_token", "-refresh", refresh})...)
			r := instancectl(t, args...)
			if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != tt.want || int64(lines[0].Sends) != server.requests.Load() {
				t.Errorf("status %d, lines %+v, want error %q and %d sends", r.status, lines, tt.want, server.requests.Load())
			}
			if !strings.Contains(r.stderr, tt.shown) {
				t.Errorf("stderr %q, want %q in it", r.stderr, tt.shown)
			}
			text := instancectl(t, slices.DeleteFunc(args, func(arg string) bool { return arg == "-json" })...)
			for _, output := range []string{r.stdout, r.stderr, text.stdout, text.stderr} {
				if strings.Contains(output, secret) || strings.Contains(output, "abcd0123") || strings.ContainsRune(output, '\x1b') || strings.Contains(output, `x1b`) {
					t.Errorf("printed %q", output)
				}
			}
		})
	}
}

// The status line of the challenge endpoint is in an error of package transport.
func TestTokenChallengeEchoes(t *testing.T) {
	self, _ := newSelf(t)
	server := startHostile(t, map[string]http.HandlerFunc{
		"/token":     answers(http.StatusOK, ""),
		"/challenge": says(500, "eyJhbGciOiJub25lIn0.e30. \x1b[2J"),
	})
	r := instancectl(t, server.token("-store", "soft", "-self", self)...)
	if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || int64(lines[0].Sends) != server.requests.Load() {
		t.Errorf("status %d, lines %+v, %d requests", r.status, lines, server.requests.Load())
	}
	if strings.Contains(r.stderr, "x1b") {
		t.Errorf("stderr %q", r.stderr)
	}
}

// A resource may repeat the access token, which need not be a JWT.
func TestTokenResourceEchoes(t *testing.T) {
	self, _ := newSelf(t)
	server := startHostile(t, map[string]http.HandlerFunc{"/token": answers(http.StatusOK, `{"access_token":"opaque-1","token_type":"Bearer"}`)})
	resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		w.Header().Set("WWW-Authenticate", `Bearer error="`+sent+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer resource.Close()
	r := instancectl(t, server.token("-store", "soft", "-self", self, "-resource", resource.URL)...)
	if lines := tokenLines(t, r); r.status != 1 || len(lines) != 1 || lines[0].Error != "resource_401" {
		t.Errorf("status %d, lines %+v", r.status, lines)
	}
	if strings.Contains(r.stderr, "opaque-1") {
		t.Errorf("stderr %q", r.stderr)
	}
}
