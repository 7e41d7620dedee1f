// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
)

func TestHTTPAttesterAnswers(t *testing.T) {
	refusal := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	type kind int
	const (
		other kind = iota
		refused
		unavailable
	)
	type test struct {
		page http.HandlerFunc
		kind kind
		code string // of the *AttesterError; "-" if the error is none
	}
	tests := map[string]test{
		"403":               {refusal(403, `{"error":"policy_violation","error_description":"firmware 1.2 is too old"}`), refused, "policy_violation"},
		"403, another code": {refusal(403, ` {"detail":1,"error":"device_blocked"} `), refused, "device_blocked"},
		"429, own":          {refusal(429, `{"error":"slow_down"}`), unavailable, "slow_down"},
		"503":               {refusal(503, `{"error":"temporarily_unavailable"}`), unavailable, "temporarily_unavailable"},
		"401":               {refusal(401, `{"error":"x"}`), other, "x"},
		"404, own":          {refusal(404, `{"error":"unknown_client"}`), other, "unknown_client"},
		"400, long code":    {refusal(400, `{"error":"`+strings.Repeat("x", 10000)+`","error_description":"`+strings.Repeat("y", 10000)+`"}`), other, strings.Repeat("x", 10000)},
		"cut off":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unavailable, "-"},
		"redirect 302":      {redirect(302, "https://elsewhere.example.com/"), unavailable, ""},
		"redirect 303":      {redirect(303, "https://portal.example.com/login"), unavailable, ""},
		"redirect 307":      {redirect(307, "https://elsewhere.example.com/"), unavailable, ""},
		"redirect 308 home": {redirect(308, attesterURL+"/elsewhere"), unavailable, ""},
		"201":               {refusal(201, `{"challenge":"c","client_attestation":"a"}`), unavailable, ""},
		"202, error":        {refusal(202, `{"error":"policy_violation"}`), unavailable, ""},
		"407, error":        {refusal(407, `{"error":"policy_violation"}`), unavailable, ""},
		"511, error":        {refusal(511, `{"error":"policy_violation"}`), unavailable, ""},
	}
	// What a proxy, a filter or a captive portal answers is never the attester's
	// word, whatever its status.
	for what, body := range map[string]string{
		"empty":                "",
		"HTML":                 "<!DOCTYPE html><html><title>Blocked</title>",
		"text":                 "RBAC: access denied",
		"JSON without error":   `{"message":"Forbidden"}`,
		"status's name":        `{"timestamp":1,"status":403,"error":"Forbidden","path":"/"}`,
		"sentence":             `{"error":"access denied by policy"}`,
		"error an object":      `{"error":{"code":403,"message":"Forbidden"}}`,
		"error a list":         `{"error":["policy_violation"]}`,
		"error a number":       `{"error":403}`,
		"error null":           `{"error":null}`,
		"error empty":          `{"error":""}`,
		"error twice":          `{"error":"policy_violation","error":"policy_violation"}`,
		"error in capitals":    `{"Error":"policy_violation"}`,
		"description no text":  `{"error":"policy_violation","error_description":{}}`,
		"list":                 `[{"error":"policy_violation"}]`,
		"a string":             `"policy_violation"`,
		"two objects":          `{"error":"policy_violation"}{}`,
		"cut short":            `{"error":"policy_violation"`,
		"HTML with JSON in it": `<pre>{"error":"policy_violation"}</pre>`,
		"huge":                 `{"error":"policy_violation","x":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		for _, code := range []int{204, 206, 300, 304, 400, 401, 403, 404, 405, 407, 413, 429, 451, 500, 502, 503, 504, 511} {
			if code != 204 && code != 304 || body == "" {
				tests[fmt.Sprintf("%d, %s", code, what)] = test{refusal(code, body), unavailable, ""}
			}
		}
		tests["200, "+what] = test{text(body), unavailable, "-"}
	}
	for what, body := range map[string]string{
		"wrong types":     `{"challenge":1,"client_attestation":{}}`,
		"twice":           `{"challenge":"a","challenge":"b","client_attestation":"a","client_attestation":"b"}`,
		"null":            `null`,
		"members null":    `{"challenge":null,"client_attestation":null}`,
		"members empty":   `{"challenge":"","client_attestation":""}`,
		"other case":      `{"Challenge":"c","CLIENT_ATTESTATION":"a"}`,
		"no JSON at end":  `{"challenge":"c","client_attestation":"a"}<!-- injected -->`,
		"spaces after it": `{"challenge":"c","client_attestation":"a"}` + strings.Repeat(" ", 1<<20),
		"too large":       `{"challenge":"c","client_attestation":"a","x":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		tests["200, "+what] = test{text(body), unavailable, "-"}
	}
	for _, code := range []string{"invalid_request", "invalid_pop", "invalid_challenge", "unsupported_evidence", "unsupported_key", "invalid_evidence",
		"key_not_protected", "platform_evidence_required", "ak_not_enrolled", "invalid_ak", "invalid_session", "activation_failed", "untrusted_tpm"} {
		tests["400 "+code] = test{refusal(400, `{"error":"`+code+`","error_description":"a\nb"}`), other, code}
	}
	if len(tests) != 16+20*17+2+9+13 {
		t.Fatalf("%d tests, want 380", len(tests))
	}
	for name, test := range tests {
		for _, path := range []string{"/challenge", "/client-attestation"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				site := newSite()
				site.set(attesterURL+"/challenge", text(`{"challenge":"c"}`))
				site.set(attesterURL+path, test.page)
				h := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{site}}}
				_, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256"), Clock: newTestClock().now})
				if err == nil {
					t.Fatal("no error")
				}
				if got := errors.Is(err, client.ErrAttestationRefused); got != (test.kind == refused) {
					t.Errorf("%v is ErrAttestationRefused: %t", err, got)
				}
				if got := errors.Is(err, client.ErrAttesterUnavailable); got != (test.kind == unavailable) {
					t.Errorf("%v is ErrAttesterUnavailable: %t", err, got)
				}
				var answer *client.AttesterError
				if errors.As(err, &answer) != (test.code != "-") {
					t.Errorf("%v is an *AttesterError: %t", err, answer != nil)
				} else if answer != nil {
					// Who is overloaded may say for how long, a proxy on its behalf, too.
					heard := test.code != "" || answer.Status == 429 || answer.Status >= 500 && answer.Status != 511
					if answer.Code != test.code || (answer.RetryAfter == 2*time.Minute) != heard || !heard && answer.RetryAfter != 0 {
						t.Errorf("%+v, want code %q, Retry-After heeded: %t", answer, test.code, heard)
					}
				}
				if !strings.Contains(err.Error(), attesterURL+path) {
					t.Errorf("%q does not say what was asked", err)
				}
				if len(err.Error()) > 600 || strings.Contains(err.Error(), "\n") {
					t.Errorf("error has %d bytes, or a newline", len(err.Error()))
				}
				wants := []string{"POST " + attesterURL + "/challenge", "POST " + attesterURL + "/client-attestation"}
				if path == "/challenge" {
					wants = wants[:1]
				}
				if visits := site.visits(); !slices.Equal(visits, wants) {
					t.Errorf("requests %q, want %q", visits, wants)
				}
			})
		}
	}
}

func TestHTTPAttesterRetryAfter(t *testing.T) {
	now := newTestClock().now()
	for value, want := range map[string]time.Duration{
		"":                     0,
		"0":                    0,
		"10":                   10 * time.Second,
		"3600":                 time.Hour,
		"86400":                time.Hour,
		"99999999999999999999": time.Hour,
		"-1":                   0,
		"1.5":                  0,
		"soon":                 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(48 * time.Hour).Format(http.TimeFormat):   time.Hour,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		t.Run(value, func(t *testing.T) {
			site := newSite()
			site.set(attesterURL+"/challenge", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(503)
			})
			h := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{site}}}
			_, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256"), Clock: newTestClock().now})
			var answer *client.AttesterError
			if !errors.As(err, &answer) || answer.RetryAfter != want {
				t.Errorf("%+v, want RetryAfter %s", err, want)
			}
		})
	}
}
