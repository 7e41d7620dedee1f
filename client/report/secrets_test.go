// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
)

// TestNoSecrets: no signature, token or other credential is in a report, and what
// identifies a device is shortened, also where a server says it again.
func TestNoSecrets(t *testing.T) {
	const (
		ek     = "a919faf27d6480de123108ac792e621183f6e39b36f10505cc87f34d3a8b1135"
		serial = "SN-0123456789-ABCDEF"
		ueid   = "AYxg0123456789abcdefgh"
		cookie = "session=0123456789cookie"
		query  = "api_key=0123456789query"
	)
	w := newWorld(t)
	w.claims = map[string]any{"ek": ek, "serial_number": serial, "ueid": ueid, "submods": map[string]any{"platform": map[string]any{"serial": serial}}, "sueids": map[string]any{"x": ueid}}
	// It repeats all that it is sent, in each of its texts.
	w.answers[issuer+"/token"] = func(rw http.ResponseWriter, req *http.Request) {
		if w.seen[issuer+"/token"] == 1 {
			all := req.Header.Get("OAuth-Client-Attestation") + " " + req.Header.Get("OAuth-Client-Attestation-PoP")
			rw.Header().Set("WWW-Authenticate", `Bearer error_description="`+all[len(all)-40:]+`"`)
			rw.Header().Set("OAuth-Client-Attestation-Challenge", "new-challenge")
			rw.Header().Set("Set-Cookie", cookie)
			rw.Header().Set("X-Echo", all)
			give(rw, 400, map[string]any{"error": "use_attestation_challenge", "error_description": all, all[:60]: all, "scope": all[len(all)-30:]})
			return
		}
		rw.Header().Set("Set-Cookie", cookie)
		give(rw, 200, map[string]any{
			"access_token": accessToken, "refresh_token": refreshToken, "id_token": idToken, "token_type": "Bearer",
			"expires_in": 300, "scope": "scope " + accessToken,
		})
	}
	w.answers[resourceURL] = func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Bearer realm="`+req.Header.Get("Authorization")+`"`)
		give(rw, 403, map[string]any{"error": "insufficient_scope", "error_description": req.Header.Get("Authorization"), "reading": "private"})
	}
	recorder, err := w.run(func(cfg *client.Config) { cfg.Resources = []client.Resource{{Identifier: resourceURL}} })
	if err != nil {
		t.Fatal(err)
	}

	// Another grant, with parameters that are secret, and a call of the resource.
	cfg := w.config()
	cfg.Resources = []client.Resource{{Identifier: resourceURL}}
	recorder.Attach(&cfg)
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {"code-0123456789"}, "code_verifier": {"verifier-0123456789"}, "client_secret": {"secret-0123456789"}, "pin": {"7391846"}}
	resp, err := c.HTTPClient().PostForm(issuer+"/token", form)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp, err = c.ResourceClient("scope").Get(resourceURL + "?" + query); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}

	act := recorder.Act()
	page, text, figure := written(t, act)
	secrets := append([]string{accessToken, refreshToken, idToken, ek, serial, ueid, cookie, "0123456789query", "private", "code-0123456789", "verifier-0123456789", "secret-0123456789", "7391846"}, w.secrets...)
	if len(w.secrets) < 7 {
		t.Fatalf("%d signatures were seen", len(w.secrets))
	}
	for _, out := range []string{page, text, figure} {
		for _, secret := range secrets {
			for start := 0; start == 0 || start+14 < len(secret); start += 14 { // also a part of it
				if part := secret[start:min(start+14, len(secret))]; len(part) > 6 && strings.Contains(out, part) {
					t.Errorf("%q of %q is in a report", part, secret)
				}
			}
		}
	}
	// What is to be there, is.
	for _, want := range []string{"a919faf2…", "SN-01234…", "insufficient_scope", "authorization_code", resourceURL + "?…", "not shown: it repeats a credential"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if !json.Valid([]byte(text)) {
		t.Error("the JSON is none")
	}
}

// TestWhoseRequest: a token endpoint below a resource is the server's all the same, so that
// its credentials are known as such; a resource ends where its path does, and what has no
// scheme is a credential as a whole.
func TestWhoseRequest(t *testing.T) {
	w := newWorld(t)
	const key = "api-key-0123456789"
	place := resourceURL + "-of-another"
	for _, at := range []string{resourceURL, place} {
		w.answers[at] = func(rw http.ResponseWriter, req *http.Request) {
			give(rw, 403, map[string]any{"error": "insufficient_scope", "error_description": req.Header.Get("Authorization")})
		}
	}
	resources := []client.Resource{{Identifier: issuer}, {Identifier: resourceURL}}
	recorder, err := w.run(func(cfg *client.Config) { cfg.Resources = resources })
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.Resources = resources
	recorder.Attach(&cfg)
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, at := range []string{resourceURL, place} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", key)
		resp, err := c.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	act := recorder.Act()
	steps := make(map[report.StepID]report.Step)
	for _, s := range act.Steps {
		steps[s.ID] = s
	}
	if steps[report.SendProof].Requests != 1 || steps[report.ResourceCall].Requests != 1 {
		t.Errorf("%d requests to the token endpoint, %d to the resource", steps[report.SendProof].Requests, steps[report.ResourceCall].Requests)
	}
	page, text, _ := written(t, act)
	for _, secret := range []string{accessToken, refreshToken, key} {
		if strings.Contains(page, secret) || strings.Contains(text, secret) {
			t.Errorf("%q is in a report", secret)
		}
	}
	if strings.Contains(page, "Idempotency-Key") {
		t.Error("a header field is shown that was not sent")
	}
}
