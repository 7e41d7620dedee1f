// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// answerWith intercepts token requests.
func answerWith(code int, contentType, body string) func(*transporttest.Policy) {
	return intercept(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
}

func intercept(answer func(http.ResponseWriter)) func(*transporttest.Policy) {
	return func(p *transporttest.Policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint == transporttest.Token {
				answer(w)
				return true
			}
			return false
		}
	}
}

const secret = "SECRET-OF-THE-SERVER"

func TestTokenErrors(t *testing.T) {
	type want struct {
		step     transport.Step
		send     int
		status   int
		code     string
		oauth    bool // an *oauth2.RetrieveError
		is       error
		requests int // for tokens
	}
	asJSON := func(code int, body string) func(*transporttest.Policy) {
		return answerWith(code, "application/json", body)
	}
	for name, test := range map[string]struct {
		policy func(*transporttest.Policy)
		want   want
	}{
		"invalid_client": {asJSON(401, `{"error":"invalid_client","x":"`+secret+`"}`), want{"answer", 1, 401, "invalid_client", true, nil, 1}},
		"in a header field": {intercept(func(w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", `Attest realm="x", error="invalid_client_attestation"`)
			w.WriteHeader(http.StatusUnauthorized)
		}), want{"answer", 1, 401, "invalid_client_attestation", true, nil, 1}},
		"invalid_scope":   {asJSON(400, `{"error":"invalid_scope"}`), want{"answer", 1, 400, "invalid_scope", true, nil, 1}},
		"by the server":   {func(p *transporttest.Policy) { p.UnknownClient = true }, want{"answer", 1, 401, "invalid_client", true, nil, 1}},
		"after a retry":   {func(p *transporttest.Policy) { p.RefuseAll = true }, want{"answer", 2, 400, "use_attestation_challenge", true, nil, 2}},
		"no code":         {asJSON(400, `{"message":"`+secret+`"}`), want{"answer", 1, 400, "", true, nil, 1}},
		"a proxy's page":  {answerWith(502, "text/html", "<html>"+secret), want{"answer", 1, 502, "", true, nil, 1}},
		"431, empty":      {answerWith(431, "text/plain", ""), want{"answer", 1, 431, "", true, nil, 1}},
		"error as a form": {answerWith(400, "application/x-www-form-urlencoded", "error=invalid_grant&error_description="+secret), want{"answer", 1, 400, "invalid_grant", true, nil, 1}},
		"error with 200":  {asJSON(200, `{"error":"server_error","x":"`+secret+`"}`), want{"answer", 1, 200, "server_error", true, nil, 1}},
		"200, no token":   {asJSON(200, `{"token_type":"Bearer","x":"`+secret+`"}`), want{"answer", 1, 0, "", false, nil, 1}},
		"200, a page":     {answerWith(200, "text/html", "<html>"+secret), want{"answer", 1, 0, "", false, nil, 1}},
		"200, empty":      {asJSON(200, ""), want{"answer", 1, 0, "", false, nil, 1}},
		"200, wrong type": {asJSON(200, `{"access_token":{"a":"`+secret+`"}}`), want{"answer", 1, 0, "", false, nil, 1}},
		"204":             {asJSON(204, ""), want{"answer", 1, 0, "", false, nil, 1}},
		"2 MiB":           {asJSON(200, `{"x":"`+secret+strings.Repeat("x", 2<<20)), want{"answer", 1, 0, "", false, nil, 1}},
		"redirect":        {func(p *transporttest.Policy) { redirectToken(p, 307) }, want{"send", 1, 0, "", false, transport.ErrRedirect, 1}},
		"redirect as GET": {func(p *transporttest.Policy) { redirectToken(p, 302) }, want{"send", 1, 0, "", false, transport.ErrRedirect, 1}},
		"cut":             {intercept(func(http.ResponseWriter) { panic(http.ErrAbortHandler) }), want{"send", 1, 0, "", false, io.ErrUnexpectedEOF, 1}},
		"attester":        {func(*transporttest.Policy) {}, want{"get attestation", 1, 0, "", false, client.ErrAttesterUnavailable, 0}},
		"code is long":    {asJSON(400, `{"error":"`+strings.Repeat("x", 5000)+secret+`"}`), want{"answer", 1, 400, strings.Repeat("x", 100), true, nil, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.Set(test.policy)
			if name == "attester" {
				r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
					return "", client.ErrAttesterUnavailable
				})
			}
			var log bytes.Buffer
			c := r.client(t, func(cfg *client.Config) {
				cfg.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			token, err := c.Token(t.Context())
			if err == nil || token != nil {
				t.Fatalf("token %v, error %v", token, err)
			}
			var failure *transport.Error
			if !errors.As(err, &failure) {
				t.Fatalf("error %v is no *transport.Error", err)
			}
			thumbprint, _ := keystore.Thumbprint(c.Key().Public())
			if failure.Audience != r.Issuer || failure.Thumbprint != thumbprint {
				t.Errorf("audience %q, thumbprint %q", failure.Audience, failure.Thumbprint)
			}
			if failure.Step != test.want.step || failure.Send != test.want.send {
				t.Errorf("step %q, send %d, want %q and %d", failure.Step, failure.Send, test.want.step, test.want.send)
			}
			if failure.Status != test.want.status || failure.Code != test.want.code {
				t.Errorf("status %d, code %.40q, want %d and %.40q", failure.Status, failure.Code, test.want.status, test.want.code)
			}
			if errors.As(err, new(*oauth2.RetrieveError)) != test.want.oauth {
				t.Errorf("%v is an *oauth2.RetrieveError: %t", err, !test.want.oauth)
			}
			if test.want.is != nil && !errors.Is(err, test.want.is) {
				t.Errorf("error %v, want %v", err, test.want.is)
			}
			requests := r.Requests(transporttest.Token)
			if len(requests) != test.want.requests {
				t.Errorf("%d token requests, want %d", len(requests), test.want.requests)
			}
			secrets := []string{secret}
			for _, request := range requests {
				secrets = append(secrets, request.Attestation(), request.Header.Get(transport.HeaderAttestationPoP))
			}
			for _, text := range secrets {
				if strings.Contains(err.Error(), text) || strings.Contains(log.String(), text) {
					t.Errorf("a secret in the error or in the log: %v; %s", err, log.String())
				}
			}
			if len(err.Error()) > 500 {
				t.Errorf("error has %d bytes", len(err.Error()))
			}
		})
	}
}

// TestErrorCodeThatRepeatsACredential is none, whatever status and form it comes with.
func TestErrorCodeThatRepeatsACredential(t *testing.T) {
	const refreshToken = "0123456789abcdef0123456789abcdef" // which looks like a code
	sent := map[string]func(transporttest.Request) string{
		"attestation":   func(q transporttest.Request) string { return q.Attestation() },
		"PoP":           func(q transporttest.Request) string { return q.Header.Get(transport.HeaderAttestationPoP) },
		"refresh token": func(transporttest.Request) string { return refreshToken },
		"a part of it":  func(transporttest.Request) string { return "invalid_" + refreshToken[7:19] },
		"what looks like a code of the attestation": func(q transporttest.Request) string { return lowerCase.FindString(q.Attestation()) },
	}
	forms := map[string]func(code string) string{
		"application/json":                  func(code string) string { return `{"error":"` + code + `"}` },
		"application/x-www-form-urlencoded": func(code string) string { return "error=" + code },
	}
	for _, status := range []int{200, 400, 401, 403, 500} {
		for contentType, form := range forms {
			for name, of := range sent {
				r := newRig(t, transporttest.Policy{})
				r.Set(func(p *transporttest.Policy) {
					p.Intercept = func(w http.ResponseWriter, q transporttest.Request) bool {
						if q.Endpoint != transporttest.Token {
							return false
						}
						w.Header().Set("Content-Type", contentType)
						w.WriteHeader(status)
						_, _ = io.WriteString(w, form(of(q)))
						return true
					}
				})
				r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (attestation string, err error) {
					for lowerCase.FindString(attestation) == "" { // signatures differ
						attestation = r.Attester.Attest(req.Key.Public())
					}
					return attestation, nil
				})
				_, err := r.client(t).Refresh(t.Context(), refreshToken)
				var failure *transport.Error
				if !errors.As(err, &failure) || failure.Step != transport.StepAnswer {
					t.Fatalf("%d, %s in %s: %v", status, name, contentType, err)
				}
				if failure.Code != "" || strings.Contains(err.Error(), refreshToken[7:19]) {
					t.Errorf("%d, %s in %s: code %.40q in %.200s", status, name, contentType, failure.Code, err)
				}
			}
		}
	}
}

func redirectToken(p *transporttest.Policy, code int) {
	intercept(func(w http.ResponseWriter) { redirect(code, "https://elsewhere.example.com/")(w, nil) })(p)
}

// TestTemporaryWhileAttesterIsAway: transport.Error tells what passes from what
// does not.
func TestTemporaryWhileAttesterIsAway(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close() // its port is free now
	answer := func(code int, body string) client.Attester {
		site := newSite()
		site.set(attesterURL+"/challenge", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		})
		return client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{site}}}
	}
	failing := func(err error) client.Attester {
		return &testAttester{attest: func(context.Context, client.AttestRequest, int) (string, error) { return "", err }}
	}
	for name, test := range map[string]struct {
		attester  client.Attester
		temporary bool
	}{
		"connection refused":   {client.HTTPAttester{URL: gone.URL}, true},
		"429":                  {answer(429, ""), true},
		"503":                  {answer(503, ""), true},
		"another attester's":   {failing(fmt.Errorf("%w: %w", client.ErrAttesterUnavailable, io.EOF)), true},
		"not provisioned yet":  {client.PushAttester{File: filepath.Join(t.TempDir(), "none")}, true},
		"403 of a filter":      {answer(403, "<html>"), true},
		"404 of a filter":      {answer(404, ""), true},
		"403":                  {answer(403, `{"error":"policy_violation"}`), false},
		"400":                  {answer(400, `{"error":"untrusted_tpm"}`), false},
		"what nobody knows of": {failing(errors.New("out of paper")), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			_, err := r.client(t, func(cfg *client.Config) { cfg.Key, cfg.Store, cfg.Attester = newKey(t, "ES256"), nil, test.attester }).Token(t.Context())
			var failure *transport.Error
			if !errors.As(err, &failure) || failure.Step != "get attestation" || failure.Temporary() != test.temporary {
				t.Errorf("error %v, want one of step \"get attestation\" that is temporary: %t", err, test.temporary)
			}
		})
	}
}

func TestTokenErrorsOfKeyAndMetadata(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, func(cfg *client.Config) { cfg.Key, cfg.Store = lostKey{newKey(t, "ES256")}, nil })
	_, err := c.Token(t.Context())
	var failure *transport.Error
	if !errors.Is(err, keystore.ErrKeyLost) || !errors.As(err, &failure) || failure.Step != "sign" || failure.Temporary() {
		t.Errorf("error %v, want ErrKeyLost at step sign", err)
	}
	if n := r.Count(transporttest.Token); n != 0 {
		t.Errorf("%d token requests, want 0", n)
	}

	r.edit(transporttest.Metadata, func(m map[string]any) { m["issuer"] = "https://other.example.com" })
	if _, err := r.client(t).Token(t.Context()); !errors.Is(err, client.ErrMetadata) {
		t.Errorf("error %v, want ErrMetadata", err)
	}
}

// lostKey is a key whose device has lost it.
type lostKey struct{ keystore.Key }

func (lostKey) Sign(context.Context, []byte) ([]byte, error) { return nil, keystore.ErrKeyLost }
