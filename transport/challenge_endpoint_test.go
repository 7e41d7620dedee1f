// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC27FetchesBeforeTheFirstRequest: one request for the challenge, one for
// the token; warm, the token alone.
func TestC27FetchesBeforeTheFirstRequest(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	f.counts(1, 1)
	for range 3 {
		f.token(http.StatusOK)
	}
	f.counts(4, 1)
	if n := f.server.Refused(); n != 0 {
		t.Errorf("%d PoPs refused", n)
	}
}

// TestC31ChallengeRequest: what is sent to the endpoint.
func TestC31ChallengeRequest(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK)
	r := f.server.Requests(transporttest.Challenge)[0]
	if r.Method != http.MethodPost || len(r.Body) != 0 || r.Header.Get("Accept") != "application/json" || r.Header.Get("Content-Length") != "" && r.Header.Get("Content-Length") != "0" {
		t.Errorf("%s with a body of %d bytes, header %v", r.Method, len(r.Body), r.Header)
	}
	for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP, "Authorization", "Idempotency-Key"} {
		if r.Header.Values(name) != nil {
			t.Errorf("challenge request with %s", name)
		}
	}
}

// TestC31EndpointAnswers: what the endpoint may answer, and what comes of it.
func TestC31EndpointAnswers(t *testing.T) {
	type answer struct {
		status      int
		contentType string
		header      string // challenge
		body        string
	}
	tests := []struct {
		name   string
		answer answer
		sent   string // challenge of the first PoP
		err    string
	}{
		{name: "body", answer: answer{body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "other members", answer: answer{body: `{"a":[{}],"attestation_challenge":"in-body","expires_in":5}`}, sent: "in-body"},
		{name: "body and header", answer: answer{header: "in-header", body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "header alone", answer: answer{header: "in-header", body: `{}`}, sent: "in-header"},
		{name: "none", answer: answer{body: `{}`}},
		{name: "any characters", answer: answer{body: `{"attestation_challenge":"<&>\"\\é\u2028 ="}`}, sent: "<&>\"\\é\u2028 ="},
		{name: "content type is not looked at", answer: answer{contentType: "text/plain", body: `{"attestation_challenge":"in-body"}`}, sent: "in-body"},
		{name: "twice", answer: answer{body: `{"attestation_challenge":"a","attestation_challenge":"b"}`}, err: "JSON"},
		{name: "number", answer: answer{body: `{"attestation_challenge":5}`}, err: "JSON"},
		{name: "other case", answer: answer{body: `{"Attestation_Challenge":"a"}`}},
		{name: "array", answer: answer{body: `["attestation_challenge"]`}, err: "JSON"},
		{name: "HTML", answer: answer{contentType: "text/html", body: `<html>login</html>`}, err: "JSON"},
		{name: "cut short", answer: answer{body: `{"attestation_challenge":"a"`}, err: "JSON"},
		{name: "more behind it", answer: answer{body: `{"attestation_challenge":"a"}{}`}, err: "JSON"},
		{name: "huge challenge", answer: answer{body: `{"attestation_challenge":"` + strings.Repeat("a", 5000) + `"}`}, err: "5000 bytes"},
		{name: "huge body", answer: answer{body: `{"attestation_challenge":"a","x":"` + strings.Repeat("a", 1<<20) + `"}`}, err: "65536 bytes"},
		{name: "500", answer: answer{status: 500, body: `{"attestation_challenge":"a"}`}, err: "500"},
		{name: "201", answer: answer{status: 201, body: `{"attestation_challenge":"a"}`}, err: "201"},
		{name: "302", answer: answer{status: 302}, err: "302"},
		{name: "400", answer: answer{status: 400, body: `{"error":"invalid_request"}`}, err: "400"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.NoChallenges})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint != transporttest.Challenge {
						return false
					}
					if test.answer.header != "" {
						w.Header().Set(transport.HeaderChallenge, test.answer.header)
					}
					w.Header().Set("Content-Type", "application/json")
					if test.answer.contentType != "" {
						w.Header().Set("Content-Type", test.answer.contentType)
					}
					if test.answer.status == 302 {
						w.Header().Set("Location", f.server.Trap.URL)
					}
					if test.answer.status != 0 {
						w.WriteHeader(test.answer.status)
					}
					fmt.Fprint(w, test.answer.body)
					return true
				}
			})
			if test.err != "" {
				err := f.fail(f.request(t.Context()))
				if !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %q does not say %q", err, test.err)
				}
				f.counts(0, 1)
				if n := f.server.Trap.Visits(); n != 0 {
					t.Errorf("%d requests followed a redirect", n)
				}
				return
			}
			f.token(http.StatusOK)
			f.counts(1, 1)
			if got := f.sent()[0]; got != test.sent {
				t.Errorf("challenge %q, want %q", got, test.sent)
			}
			f.token(http.StatusOK)
			if test.sent == "" {
				f.counts(2, 1) // an endpoint without challenges is not asked again
			}
		})
	}
}
