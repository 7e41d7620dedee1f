// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func body(t testing.TB, w *httptest.ResponseRecorder) object {
	t.Helper()
	answer := object{}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return answer
}

// lastRecord is the newest record of the log; nil if it is empty.
func (f *fixture) lastRecord() object {
	f.t.Helper()
	lines := strings.Split(strings.TrimSpace(f.log.String()), "\n")
	if lines[len(lines)-1] == "" {
		return nil
	}
	record := object{}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &record); err != nil {
		f.t.Fatal(err)
	}
	return record
}

// wantRefusal checks the answer and what was logged about it.
func (f *fixture) wantRefusal(w *httptest.ResponseRecorder, status int, code, rule, reason string) {
	f.t.Helper()
	answer := body(f.t, w)
	if w.Code != status || answer["error"] != code {
		f.t.Errorf("got %d %v, want %d %s", w.Code, answer, status, code)
	}
	if len(answer) != 1 {
		f.t.Errorf("the answer tells more than the code: %v", answer)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		f.t.Errorf("Cache-Control %q, want no-store", got)
	}
	record := f.lastRecord()
	if record["rule"] != rule || record["error"] != code {
		f.t.Errorf("logged %v, want rule %s", record, rule)
	}
	if got, _ := record["reason"].(string); !strings.Contains(got, reason) {
		f.t.Errorf("logged reason %q, want one with %q", got, reason)
	}
	f.wantNoJWT()
}

// startOfJWT is the beginning of a JOSE header in base64url, and not what a
// thumbprint may have inside.
var startOfJWT = regexp.MustCompile(`(^|[^A-Za-z0-9_-])eyJ`)

func (f *fixture) wantNoJWT() {
	f.t.Helper()
	if startOfJWT.Match(f.log.Bytes()) {
		f.t.Error("the log has a JWT in it")
	}
}

// wantToken checks that a token was granted, and returns the answer.
func (f *fixture) wantToken(w *httptest.ResponseRecorder, tokenType string) object {
	f.t.Helper()
	answer := body(f.t, w)
	if w.Code != http.StatusOK || answer["access_token"] == "" || answer["token_type"] != tokenType {
		f.t.Fatalf("got %d %v, logged %v; want a %s token", w.Code, answer, f.lastRecord(), tokenType)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		f.t.Errorf("Cache-Control %q, want no-store", got)
	}
	return answer
}
