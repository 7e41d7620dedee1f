// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// byUser puts the device authorization grant before the reference server, which
// has none: the device is authorized at the second poll. Client authentication
// is still the reference server's to verify.
func (w *world) byUser() (asked func() url.Values) {
	const deviceCode = "device-code"
	as := w.authServer.handler
	var form url.Values
	polls := 0
	w.authServer.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch body, _ := io.ReadAll(r.Body); r.URL.Path {
		case "/device_authorization":
			form, _ = url.ParseQuery(string(body))
			if r.Header.Get("OAuth-Client-Attestation-PoP") == "" {
				w.t.Error("the device authorization request is not authenticated")
			}
			answer(rw, http.StatusOK, map[string]any{
				"device_code": deviceCode, "user_code": "WDJB-MJHT", "verification_uri": "https://as.example.com/device", "expires_in": 600, "interval": 1,
			})
		case "/token":
			sent, _ := url.ParseQuery(string(body))
			if sent.Get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code" {
				if sent.Get("device_code") != deviceCode {
					w.t.Errorf("form %v", sent)
				}
				if polls++; polls == 1 {
					answer(rw, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
					return
				}
				sent.Set("grant_type", "client_credentials")
				body = []byte(sent.Encode())
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			as.ServeHTTP(rw, r)
		default:
			recorder := httptest.NewRecorder()
			as.ServeHTTP(recorder, r)
			var metadata map[string]any
			if !strings.Contains(r.URL.Path, "/.well-known/") || json.Unmarshal(recorder.Body.Bytes(), &metadata) != nil {
				answer(rw, recorder.Code, json.RawMessage(recorder.Body.Bytes()))
				return
			}
			metadata["device_authorization_endpoint"] = w.authServer.URL + "/device_authorization"
			answer(rw, recorder.Code, metadata)
		}
	}))
	return func() url.Values { return form }
}

func answer(rw http.ResponseWriter, status int, v any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(v)
}

// TestAuthorizedByUser: the user is asked once, and not again after a restart:
// the refresh token is good for the key.
func TestAuthorizedByUser(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	args := w.args("-grant", "device_code", "-keys", t.TempDir())
	asked := w.byUser()
	d := w.start(args...)
	d.calls()
	if form := asked(); form.Get("client_id") != clientID || form.Get("scope") != "readings" || form.Get("resource") != w.resource.URL+"/readings" {
		t.Errorf("form %v", form)
	}
	if log := d.log.String(); !strings.Contains(log, "WDJB-MJHT") || !strings.Contains(log, "https://as.example.com/device") {
		t.Errorf("the user is told: %s", log)
	}
	counts := func(asked, tokens int) {
		t.Helper()
		if a, n := w.authServer.count("/device_authorization"), w.authServer.count("/token"); a != asked || n != tokens {
			t.Errorf("%d device authorization requests and %d token requests, want %d and %d", a, n, asked, tokens)
		}
	}
	counts(1, 2)
	w.refuse()
	d.calls() // with the refresh token
	counts(1, 3)
	w.keepsToken()
	d.terminates()

	w.refuse()
	d = w.start(args...)
	d.calls()
	counts(1, 4)
	w.keepsToken()
	d.terminates()
}

// TestRefreshTokenEnds: then the user is asked again.
func TestRefreshTokenEnds(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	args := w.args("-keys", t.TempDir())
	d := w.start(args...)
	d.calls()
	as := w.authServer.handler
	refused, busy := 0, 1
	w.authServer.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "grant_type=refresh_token") {
			refused++
			answer(rw, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		if r.URL.Path == "/token" && busy > 0 {
			busy--
			answer(rw, http.StatusServiceUnavailable, map[string]any{"error": "temporarily_unavailable"})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		as.ServeHTTP(rw, r)
	}))
	w.refuse()
	d.fails(1)
	d.calls() // without trying the refresh token again
	w.refuse()
	d.calls()
	if refused != 2 || w.authServer.count("/token") != 6 {
		t.Errorf("%d refusals in %d token requests, want 2 in 6", refused, w.authServer.count("/token"))
	}
	d.terminates()
}

// TestNoDeviceGrant: what cannot work says so.
func TestNoDeviceGrant(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	d := w.start(w.args("-grant", "device_code")...)
	d.fails(1)
	if log := d.log.String(); !strings.Contains(log, "-grant client_credentials") {
		t.Errorf("it says: %s", log)
	}
	if n := w.authServer.count("/token"); n != 0 {
		t.Errorf("%d token requests", n)
	}
	d.terminates()
}
