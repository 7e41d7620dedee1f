package client_test

import (
	"errors"
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
		"403, empty":        {refusal(403, ""), refused, ""},
		"403, HTML":         {refusal(403, "<html>proxy"), refused, ""},
		"429":               {refusal(429, ""), unavailable, ""},
		"500":               {refusal(500, "panic"), unavailable, ""},
		"502":               {refusal(502, "<html>"), unavailable, ""},
		"503":               {refusal(503, `{"error":"temporarily_unavailable"}`), unavailable, "temporarily_unavailable"},
		"401":               {refusal(401, `{"error":"x"}`), other, "x"},
		"404":               {refusal(404, "not here"), other, ""},
		"204":               {refusal(204, ""), other, ""},
		"201":               {refusal(201, `{"challenge":"c","client_attestation":"a"}`), other, ""},
		"200, empty":        {text(""), other, "-"},
		"200, HTML":         {text("<html>"), other, "-"},
		"200, list":         {text("[]"), other, "-"},
		"200, wrong types":  {text(`{"challenge":1,"client_attestation":{}}`), other, "-"},
		"200, twice":        {text(`{"challenge":"a","challenge":"b","client_attestation":"a","client_attestation":"b"}`), other, "-"},
		"200, huge":         {text(`{"challenge":"c","client_attestation":"a","x":"` + strings.Repeat("x", 1<<20) + `"}`), other, "-"},
		"500, huge":         {refusal(500, strings.Repeat("x", 1<<20)), unavailable, ""},
		"400, long code":    {refusal(400, `{"error":"`+strings.Repeat("x", 10000)+`","error_description":"`+strings.Repeat("y", 10000)+`"}`), other, strings.Repeat("x", 10000)},
		"cut off":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, unavailable, "-"},
		"redirect 302":      {redirect(302, "https://elsewhere.example.com/"), other, ""},
		"redirect 307":      {redirect(307, "https://elsewhere.example.com/"), other, ""},
		"redirect 308 home": {redirect(308, attesterURL+"/elsewhere"), other, ""},
	}
	for _, code := range []string{"invalid_request", "invalid_pop", "invalid_challenge", "unsupported_evidence", "unsupported_key", "invalid_evidence",
		"key_not_protected", "platform_evidence_required", "ak_not_enrolled", "invalid_ak", "invalid_session", "activation_failed", "untrusted_tpm"} {
		tests["400 "+code] = test{refusal(400, `{"error":"`+code+`","error_description":"a\nb"}`), other, code}
	}
	if len(tests) != 23+13 {
		t.Fatalf("%d tests, want 36", len(tests))
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
				} else if answer != nil && (answer.Code != test.code || answer.Status/100 == 4 && answer.Status != 404 && answer.RetryAfter != 2*time.Minute) {
					t.Errorf("%+v, want code %q", answer, test.code)
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
