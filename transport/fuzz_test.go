// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// FuzzRefusal answers with anything. RoundTrip must neither panic nor eat a
// byte of the body, and send again only what it was asked to.
func FuzzRefusal(f *testing.F) {
	f.Add(400, "application/json", "", "c", []byte(`{"error":"use_attestation_challenge"}`))
	f.Add(401, "application/json;charset=utf-8", `Bearer error="use_attestation_challenge"`, "c", []byte(`{"error":"invalid_client"}`))
	f.Add(401, "", `DPoP error="use_dpop_nonce", Basic realm="a\"b"`, "", []byte(``))
	f.Add(400, "application/problem+json", `Negotiate YWI==, X error=use_fresh_attestation`, "<&>", []byte(`{"error":"use_fresh_attestation","error":1}`))
	f.Add(200, "text/html", `"`, strings.Repeat("c", 5000), bytes.Repeat([]byte("["), 70000))
	f.Add(400, "application/json", "", "\xff", append([]byte(`{"error":"use_attestation_challenge","x":"`), bytes.Repeat([]byte("x"), 64<<10)...))

	key := constantKey{newKey()}
	f.Fuzz(func(t *testing.T, status int, contentType, authenticate, challenge string, body []byte) {
		var sent []*transporttest.Proof
		rt, err := transport.New(transport.Config{
			Key:          key,
			Attestations: staticSource("a.b.c"),
			Servers:      []transport.Server{{Issuer: "https://as.example", Endpoints: []string{"https://as.example/token"}}},
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				if content, err := io.ReadAll(req.Body); err != nil || string(content) != form {
					t.Errorf("sent body %q, %v", content, err)
				}
				sent = append(sent, transporttest.ParseProof(req.Header.Get(transport.HeaderAttestationPoP)))
				header := http.Header{}
				for name, value := range map[string]string{"Content-Type": contentType, "WWW-Authenticate": authenticate, transport.HeaderChallenge: challenge} {
					header.Set(name, value)
				}
				return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(body))}, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(newRequest(t, t.Context(), "https://as.example/token"))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, resp); got != string(body) {
			t.Errorf("body of %d bytes became one of %d", len(body), len(got))
		}
		isRefusal := status == http.StatusBadRequest || status == http.StatusUnauthorized
		if len(sent) < 1 || len(sent) > 3 || len(sent) > 1 && !isRefusal || transport.Sends(resp) != len(sent) {
			t.Errorf("%d sends of a request that was answered with %d", len(sent), status)
		}
		for i, pop := range sent {
			if pop == nil {
				t.Fatalf("send %d has no PoP JWT", i+1)
			}
			if pop.Challenge != "" && pop.Challenge != challenge && utf8.ValidString(challenge) {
				t.Errorf("challenge %q was sent for %q", pop.Challenge, challenge)
			}
		}
	})
}

// FuzzChallengeEndpoint answers with anything where a challenge is asked for.
func FuzzChallengeEndpoint(f *testing.F) {
	f.Add(200, "", []byte(`{"attestation_challenge":"c"}`))
	f.Add(200, "c", []byte(`{}`))
	f.Add(200, "", []byte(`{"attestation_challenge":"c","attestation_challenge":"d"}`))
	f.Add(200, "", []byte(`{"attestation_challenge":{"a":[]}}`))
	f.Add(500, "c", []byte(`null`))

	key := constantKey{newKey()}
	f.Fuzz(func(t *testing.T, status int, header string, body []byte) {
		var pop *transporttest.Proof
		rt, err := transport.New(transport.Config{
			Key:          key,
			Attestations: staticSource("a.b.c"),
			Servers:      []transport.Server{{Issuer: "https://as.example", Endpoints: []string{"https://as.example/token"}, ChallengeEndpoint: "https://as.example/c"}},
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}
				if req.URL.Path == "/c" {
					resp.StatusCode, resp.Body = status, io.NopCloser(bytes.NewReader(body))
					resp.Header.Set(transport.HeaderChallenge, header)
				} else {
					pop = transporttest.ParseProof(req.Header.Get(transport.HeaderAttestationPoP))
				}
				return resp, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(newRequest(t, t.Context(), "https://as.example/token"))
		if (err == nil) != (pop != nil) || err == nil && (status != 200 || resp.StatusCode != 200) {
			t.Fatalf("error %v, PoP %v", err, pop)
		}
		if pop != nil && pop.Challenge != "" && pop.Challenge != header && utf8.ValidString(header) &&
			!bytes.Contains(body, []byte("attestation_challenge")) && !bytes.Contains(body, []byte(`\`)) {
			t.Errorf("challenge %q came from nowhere", pop.Challenge)
		}
	})
}

// constantKey signs without chance, so that the fuzzer sees what an input
// changes, and fast.
type constantKey struct{ keystore.Key }

func (constantKey) Sign(context.Context, []byte) ([]byte, error) { return make([]byte, 64), nil }
