// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// asksUser makes a server that a user authorizes devices at, who agrees at the second time
// that the device asks. Client authentication is the reference server's to verify.
func asksUser(m *mistaken, change func(answer map[string]any)) (polls *int) {
	polls = new(int)
	m.metadata = func(document map[string]any) {
		document["device_authorization_endpoint"] = m.issuer + "/device_authorization"
	}
	write := func(w http.ResponseWriter, status int, answer map[string]any) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer)
		return true
	}
	m.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/device_authorization":
			answer := map[string]any{
				"device_code": "the-secret-device-code", "user_code": "WDJB-MJHT", "verification_uri": "https://as.example.com/device",
				"verification_uri_complete": "https://as.example.com/device?user_code=WDJB-MJHT", "expires_in": 600, "interval": 1,
			}
			if change != nil {
				change(answer)
			}
			return write(w, http.StatusOK, answer)
		case "/token":
			body, _ := io.ReadAll(r.Body)
			form, _ := url.ParseQuery(string(body))
			if form.Get("grant_type") != grantDeviceURN || form.Get("device_code") != "the-secret-device-code" {
				m.t.Errorf("form %v", form)
			}
			if *polls++; *polls == 1 {
				return write(w, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
			}
			form.Set("grant_type", grantClient)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form.Encode())), int64(len(form.Encode()))
		}
		return false
	}
	return polls
}

// TestDeviceGrant: the user is told on standard error what to do, and the token comes when
// he has done it.
func TestDeviceGrant(t *testing.T) {
	m, start := newMistaken(t)
	m.server.RefreshTokens = true
	polls := asksUser(m, nil)
	start()
	refresh := filepath.Join(t.TempDir(), "refresh")
	args := []string{"token", "-store", "soft", "-keys", m.keys, "-issuer", m.issuer, "-client-id", clientID, "-self", m.self, "-grant", "device_code", "-json"}
	r := ok(t, append(args, "-refresh", refresh)...)
	if lines := tokenLines(t, r); len(lines) != 1 || lines[0].TokenType != "Bearer" || *polls != 2 || lines[0].Sends < 4 {
		t.Errorf("lines %+v after %d polls", lines, *polls)
	}
	if !strings.Contains(r.stderr, "open https://as.example.com/device\n") || !strings.Contains(r.stderr, "WDJB-MJHT") || strings.Contains(r.stderr, "▀") || strings.Contains(r.stderr, "secret") {
		t.Errorf("the user is told %q", r.stderr)
	}
	if readPrivate(t, refresh) == "" {
		t.Error("the refresh token was not kept")
	}
	if r := instancectl(t, append(args, "-n", "2")...); r.status != 2 || !strings.Contains(r.stderr, "one token at a time") {
		t.Errorf("two tokens: status %d, %s", r.status, r.stderr)
	}
}

// TestDeviceGrantHostile: a server does not write to the terminal what it likes.
func TestDeviceGrantHostile(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"controls":    func(a map[string]any) { a["user_code"] = "\x1b]0;owned\x07" },
		"line":        func(a map[string]any) { a["user_code"] = "a\nroot@device:~#" },
		"a novel":     func(a map[string]any) { a["user_code"] = strings.Repeat("x", 400) },
		"no code":     func(a map[string]any) { delete(a, "user_code") },
		"no place":    func(a map[string]any) { delete(a, "verification_uri") },
		"a script":    func(a map[string]any) { a["verification_uri_complete"] = "javascript:alert(1)" },
		"a file":      func(a map[string]any) { a["verification_uri"] = "file:///etc/passwd" },
		"a JWT":       func(a map[string]any) { a["verification_uri"] = "https://as.example.com/eyJhbGciOiJFUzI1NiJ9" },
		"an endpoint": nil,
	} {
		t.Run(name, func(t *testing.T) {
			m, start := newMistaken(t)
			polls := asksUser(m, change)
			if change == nil {
				m.metadata = nil
			}
			start()
			r := instancectl(t, "token", "-store", "soft", "-issuer", m.issuer, "-client-id", clientID, "-self", m.self, "-grant", "device_code", "-json")
			word := "failed"
			if change == nil {
				word = "metadata"
			}
			if lines := tokenLines(t, r); r.status != 1 || lines[0].Error != word || *polls != 0 {
				t.Errorf("status %d, lines %+v, %d polls", r.status, lines, *polls)
			}
			if strings.ContainsAny(r.stderr, "\x1b\x07") || strings.Contains(r.stderr, "To authorize") {
				t.Errorf("it showed %q", r.stderr)
			}
		})
	}
}
