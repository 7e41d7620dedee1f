// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A reflector answers the requests of one path with an error that quotes a part of each.
type reflector struct {
	network  http.RoundTripper
	isTarget func(*http.Request) bool
	quote    func(header http.Header, body string) string
	answer   func(quoted string) *http.Response

	mu      sync.Mutex
	secrets []string // what must not be shown, of all requests
	quoted  int
}

// secretParameters are those of a token request that are credentials.
var secretParameters = []string{"refresh_token", "code", "code_verifier", "assertion", "client_secret"}

func (r *reflector) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.isTarget(req) {
		return r.network.RoundTrip(req)
	}
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP, "Authorization", "Cookie"} {
		for _, value := range req.Header.Values(name) {
			r.secrets = append(r.secrets, strings.TrimPrefix(strings.TrimPrefix(value, "DPoP "), "Bearer "))
		}
	}
	form, _ := url.ParseQuery(string(body))
	for _, name := range secretParameters {
		if value := form.Get(name); value != "" {
			r.secrets = append(r.secrets, value, url.QueryEscape(value))
		}
	}
	quoted := r.quote(req.Header, string(body))
	if quoted != "" {
		r.quoted++
	}
	resp := r.answer(quoted)
	resp.Request = req
	return resp, nil
}

// shows returns 12 bytes in a row of a secret that text shows, "" if there are none.
func (r *reflector) shows(text string) string {
	const run, half = 12, 6
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range r.secrets {
		// Each run has a half in it that begins at a multiple of its length.
		for at := 0; at+half <= len(secret); at += half {
			if !strings.Contains(text, secret[at:at+half]) {
				continue
			}
			for i := max(0, at-half); i <= at && i+run <= len(secret); i++ {
				if strings.Contains(text, secret[i:i+run]) {
					return secret[i : i+run]
				}
			}
		}
	}
	return ""
}

// reflected are the places where an answer can quote its request.
var reflected = map[string]func(status int, quoted string) *http.Response{
	"error": func(status int, q string) *http.Response { return jsonResponse(status, map[string]any{"error": q}) },
	"error_description": func(status int, q string) *http.Response {
		return jsonResponse(status, map[string]any{"error": "invalid_client", "error_description": q})
	},
	"error_description, in the middle": func(status int, q string) *http.Response {
		return jsonResponse(status, map[string]any{"error": "invalid_client", "error_description": "you sent " + q + ", which is bad"})
	},
	"error_description, broken up": func(status int, q string) *http.Response {
		return jsonResponse(status, map[string]any{"error": "invalid_client", "error_description": strings.Join(strings.Split(q, ""), "\u00ad\n")})
	},
	"both, of a challenge that is wanted": func(status int, q string) *http.Response {
		return withChallenge(jsonResponse(status, map[string]any{"error": "use_attestation_challenge", "error_description": q}), q)
	},
	"error_uri": func(status int, q string) *http.Response {
		return jsonResponse(status, map[string]any{"error": "invalid_client", "error_uri": "https://as.example.com/" + q})
	},
	"a form": func(status int, q string) *http.Response {
		return withType(jsonResponse(status, nil), "application/x-www-form-urlencoded", url.Values{"error": {q}, "error_description": {q}}.Encode())
	},
	"a page": func(status int, q string) *http.Response { return withType(jsonResponse(status, nil), "text/html", q) },
	"the status text": func(status int, q string) *http.Response {
		resp := jsonResponse(status, nil)
		resp.Status = fmt.Sprintf("%d %s", status, q)
		return resp
	},
	"the challenge": func(status int, q string) *http.Response {
		return withChallenge(jsonResponse(status, map[string]any{"error": "invalid_client"}), q)
	},
	"the nonce": func(status int, q string) *http.Response {
		resp := jsonResponse(status, map[string]any{"error": "use_dpop_nonce"})
		resp.Header.Set("DPoP-Nonce", q)
		return resp
	},
	"WWW-Authenticate's error": func(status int, q string) *http.Response {
		return withAuthenticate(jsonResponse(status, nil), "error", q)
	},
	"WWW-Authenticate's description": func(status int, q string) *http.Response {
		return withAuthenticate(jsonResponse(status, nil), "error_description", q)
	},
	"WWW-Authenticate's realm": func(status int, q string) *http.Response {
		return withAuthenticate(jsonResponse(status, nil), "realm", q)
	},
	"WWW-Authenticate's metadata": func(status int, q string) *http.Response {
		return withAuthenticate(jsonResponse(status, nil), "resource_metadata", "https://rs.example.com/"+q)
	},
	"a redirect": func(_ int, q string) *http.Response {
		resp := jsonResponse(307, nil)
		resp.Header.Set("Location", "https://elsewhere.example.com/?q="+url.QueryEscape(q))
		return resp
	},
	"Retry-After and Date": func(status int, q string) *http.Response {
		resp := jsonResponse(status, nil)
		resp.Header.Set("Retry-After", q)
		resp.Header.Set("Date", q)
		return resp
	},
}

func jsonResponse(status int, body map[string]any) *http.Response {
	b, _ := json.Marshal(body)
	return &http.Response{Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(b))}
}

func withType(resp *http.Response, contentType, body string) *http.Response {
	resp.Header.Set("Content-Type", contentType)
	resp.Body = io.NopCloser(strings.NewReader(body))
	return resp
}

func withChallenge(resp *http.Response, challenge string) *http.Response {
	resp.Header.Set(transport.HeaderChallenge, challenge)
	return resp
}

func withAuthenticate(resp *http.Response, parameter, value string) *http.Response {
	resp.Header.Set("WWW-Authenticate", `DPoP error="invalid_token", `+parameter+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
	return resp
}

var lowerCase = regexp.MustCompile(`[a-z0-9_]{12,}`)

// quotes are the parts of a request that an answer can quote.
func quotes() map[string]func(http.Header, string) string {
	parts := map[string]func(http.Header, string) string{
		"the body": func(_ http.Header, body string) string { return body },
	}
	for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP, "Authorization", "Cookie", "User-Agent"} {
		parts[name] = func(h http.Header, _ string) string { return h.Get(name) }
		parts["12 bytes of "+name] = func(h http.Header, _ string) string {
			return h.Get(name)[min(9, len(h.Get(name))):min(21, len(h.Get(name)))]
		}
		parts["what looks like a code of "+name] = func(h http.Header, _ string) string { return lowerCase.FindString(h.Get(name)) }
	}
	for _, name := range append(secretParameters, "client_id", "grant_type") {
		parts[name] = func(_ http.Header, body string) string { form, _ := url.ParseQuery(body); return form.Get(name) }
		parts["12 bytes of "+name] = func(_ http.Header, body string) string {
			form, _ := url.ParseQuery(body)
			return form.Get(name)[min(3, len(form.Get(name))):min(15, len(form.Get(name)))]
		}
	}
	return parts
}

// watch makes a Client log and trace into what it returns.
func watch(cfg *client.Config, seen *lockedBuilder) {
	cfg.Logger = slog.New(slog.NewTextHandler(seen, &slog.HandlerOptions{Level: slog.LevelDebug}))
	event := func(_ context.Context, e transport.TraceEvent) { fmt.Fprintf(seen, "%+v %v\n", e, e.Err) }
	cfg.Trace = &client.Trace{Trace: transport.Trace{Challenge: event, Signature: event, Request: event}, Renewal: event, Evidence: event}
}

// TestReflectedCredentialsAreNotShown: whatever of a request a server or resource quotes,
// and wherever in its answer, no error, log record or trace event shows 12 bytes in a row
// of a credential.
func TestReflectedCredentialsAreNotShown(t *testing.T) {
	const resource, refreshToken = "https://rs.example.com/api", "refresh_0123456789abcdefghij"
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {"code+of/the=server 123456"}, "code_verifier": {"verifier_of_the_client_0123456789"},
		"client_secret": {"secret_of_old_times_0123"}, "assertion": {"eyJhbGciOi.eyJpc3MiOiJ.c2lnbmF0dXJl"},
	}
	var quoted, looked, codes int
	for where, answer := range reflected {
		for part, quote := range quotes() {
			for _, status := range []int{[]int{400, 401, 403, 500, 401}[(len(where)+len(part))%5]} {
				r := newResourceRig(t, transporttest.Policy{}, resource)
				token := r.Endpoint(transporttest.Token)
				reflect := &reflector{
					network: inProcess{r},
					isTarget: func(req *http.Request) bool {
						return req.URL.String() == token || strings.HasPrefix(req.URL.String(), resource)
					},
					quote:  quote,
					answer: func(q string) *http.Response { return answer(status, q) },
				}
				var seen lockedBuilder
				c := r.client(func(cfg *client.Config) {
					cfg.Base, cfg.DPoP = reflect, client.DPoPInstanceKey
					watch(cfg, &seen)
				})
				look := func(what string, err error) {
					if err == nil {
						return
					}
					looked++
					texts := shown(err)
					texts["error"] = err.Error()
					var failed *transport.Error
					if errors.As(err, &failed) {
						texts["code and description"] = failed.Code + "\n" + failed.Description
						if failed.Code != "" {
							codes++
						}
					}
					for how, text := range texts {
						if found := reflect.shows(text); found != "" && (how == "error" || how == "code and description") {
							t.Errorf("%d, %s in %s, %s: %s shows %q: %.300s", status, part, where, what, how, found, text)
						}
					}
				}
				_, err := c.Token(t.Context())
				look("Token", err)
				_, err = c.Refresh(t.Context(), refreshToken)
				look("Refresh", err)
				ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
				if resp, err := c.HTTPClient().PostForm(token, form); err == nil {
					code, description := transport.Refused(resp)
					look("a form", errors.New(code+"\n"+description))
					resp.Body.Close()
				} else {
					var wrapped *url.Error
					if errors.As(err, &wrapped) {
						look("a form", wrapped.Err)
					}
				}
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, resource+"/x", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "DPoP access_token_0123456789abcdefghij")
				req.Header.Set("Cookie", "session=session_0123456789abcdef")
				if resp, err := c.HTTPClient().Do(req); err == nil {
					code, description := transport.Refused(resp)
					look("a resource", errors.New(code+"\n"+description))
					resp.Body.Close()
				} else {
					var wrapped *url.Error
					if errors.As(err, &wrapped) {
						look("a resource", wrapped.Err)
					}
				}
				if found := reflect.shows(seen.String()); found != "" {
					t.Errorf("%d, %s in %s: log or trace shows %q: %.2000s", status, part, where, found, seen.String())
				}
				quoted += reflect.quoted
			}
		}
	}
	if quoted < 500 || looked < 1000 || codes == 0 {
		t.Errorf("%d answers quoted something, %d errors were looked at, %d with a code", quoted, looked, codes)
	}
}

// TestEarlierSendIsNotShown: a server that quotes, in its answer to a retry, what it
// was sent at first shows no more of it.
func TestEarlierSendIsNotShown(t *testing.T) {
	for _, header := range []string{transport.HeaderAttestationPoP, transport.HeaderDPoP} {
		r := newRig(t, transporttest.Policy{})
		var first string
		reflect := &reflector{
			network:  inProcess{r},
			isTarget: func(req *http.Request) bool { return req.URL.String() == r.Endpoint(transporttest.Token) },
			quote: func(h http.Header, _ string) string {
				if first == "" {
					first = h.Get(header)
					return ""
				}
				return first[len(first)-40:] // of the signature, which no other proof has
			},
		}
		reflect.answer = func(quoted string) *http.Response {
			if quoted == "" {
				return withChallenge(jsonResponse(400, map[string]any{"error": "use_attestation_challenge"}), "another-challenge")
			}
			return jsonResponse(400, map[string]any{"error": "invalid_client", "error_description": quoted})
		}
		var seen lockedBuilder
		c := r.client(t, func(cfg *client.Config) {
			cfg.Base, cfg.DPoP = reflect, client.DPoPInstanceKey
			watch(cfg, &seen)
		})
		_, err := c.Token(t.Context())
		var failed *transport.Error
		if !errors.As(err, &failed) || failed.Send != 2 || failed.Description != "" || reflect.shows(err.Error()) != "" || reflect.shows(seen.String()) != "" {
			t.Errorf("%s: %v, after %+v", header, err, failed)
		}
	}
}
