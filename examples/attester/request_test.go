// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestRequestA8: an attestation is for whoever controls the key, asks this
// attester, now, for a client that it serves. Each case breaks one of that.
func TestRequestA8(t *testing.T) {
	const bad = http.StatusBadRequest
	cases := []struct {
		name, code, reason string
		status             int
		corrupt            func(*fixture, *request)
	}{
		{"signed with another key than jwk", "invalid_pop", "signature", bad, func(f *fixture, r *request) { r.key = f.key }},
		{"no jwk", "invalid_pop", "no jwk", bad, func(f *fixture, r *request) { r.jwk = nil }},
		{"private jwk", "invalid_pop", "private", bad, func(f *fixture, r *request) { r.jwk = jose.JSONWebKey{Key: f.instance} }},
		{"typ missing", "invalid_pop", "typ", bad, func(f *fixture, r *request) { delete(r.header, "typ") }},
		{"typ of the PoP", "invalid_pop", "typ", bad, func(f *fixture, r *request) { r.header["typ"] = "oauth-client-attestation-pop+jwt" }},
		{"crit", "invalid_pop", "crit", bad, func(f *fixture, r *request) { r.header["crit"] = []string{"x"}; r.header["x"] = 1 }},
		{"HS256", "unsupported_key", "HS256", bad, func(f *fixture, r *request) {
			r.alg, r.key = jose.HS256, []byte(strings.Repeat("k", 32))
		}},
		{"RS256", "unsupported_key", "RS256", bad, func(f *fixture, r *request) {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				f.t.Fatal(err)
			}
			r.alg, r.key, r.jwk = jose.RS256, key, jose.JSONWebKey{Key: &key.PublicKey}
		}},
		{"P-521", "unsupported_key", "ES512", bad, func(f *fixture, r *request) {
			key := newKey(f.t, elliptic.P521())
			r.alg, r.key, r.jwk = jose.ES512, key, jose.JSONWebKey{Key: &key.PublicKey}
		}},
		{"alg is not the curve's", "unsupported_key", "not a key for ES256", bad, func(f *fixture, r *request) {
			r.jwk = jose.JSONWebKey{Key: &newKey(f.t, elliptic.P384()).PublicKey}
		}},
		{"no iss", "invalid_pop", "missing", bad, without("iss")},
		{"no jti", "invalid_pop", "missing", bad, without("jti")},
		{"no iat", "invalid_pop", "missing", bad, without("iat")},
		{"no exp", "invalid_pop", "missing", bad, without("exp")},
		{"no challenge", "invalid_pop", "missing", bad, without("challenge")},
		{"no aud", "invalid_pop", "not this attester", bad, without("aud")},
		{"other aud", "invalid_pop", "not this attester", bad, with("aud", attesterURL+"/")},
		{"two audiences", "invalid_pop", "not this attester", bad, with("aud", []string{attesterURL, "x"})},
		{"iat is a string", "invalid_pop", "malformed", bad, with("iat", "1800000000")},
		{"iat in the future", "invalid_pop", "in the future", bad, with("iat", 1_800_000_011)},
		{"iat too old", "invalid_pop", "old", bad, with("iat", 1_800_000_000-300)},
		{"expired", "invalid_pop", "expired", bad, with("exp", 1_800_000_000-10)},
		{"not valid yet", "invalid_pop", "nbf", bad, with("nbf", int64(4_102_444_800))},
		{"not valid for 11 seconds yet", "invalid_pop", "nbf", bad, with("nbf", 1_800_000_011)},
		{"nbf is a string", "invalid_pop", "malformed", bad, with("nbf", "1")},
		{"client not served", "policy_violation", "not served", http.StatusForbidden, with("iss", "stranger")},
		{"made-up challenge", "invalid_challenge", "not a challenge", bad, with("challenge", strings.Repeat("A", 43))},
		{"challenge of another attester", "invalid_challenge", "not a challenge", bad, func(f *fixture, r *request) {
			r.claims["challenge"] = newFixture(f.t, nil).fetchChallenge()
		}},
		{"old challenge", "invalid_challenge", "expired", bad, func(f *fixture, r *request) {
			f.now = f.now.Add(5 * time.Minute)
			r.claims["iat"], r.claims["exp"] = f.now.Unix(), f.now.Add(time.Minute).Unix()
		}},
		{"used challenge", "invalid_challenge", "already used", bad, func(f *fixture, r *request) { f.wantAttestation(f.send(r)) }},
		{"evidence that nobody verifies", "unsupported_evidence", "verifies none", bad, with("evidence", object{"attObj": "x"})},
	}
	refused := 0
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, nil)
			r := f.request()
			tc.corrupt(f, r)
			f.wantRefusal(f.send(r), tc.status, tc.code, tc.reason)
			if !t.Failed() {
				refused++
			}
		})
	}
	if refused != 31 {
		t.Errorf("%d requests refused for the right reason, want 31", refused)
	}
}

func without(claim string) func(*fixture, *request) {
	return func(f *fixture, r *request) { delete(r.claims, claim) }
}

func with(claim string, value any) func(*fixture, *request) {
	return func(f *fixture, r *request) { r.claims[claim] = value }
}

func TestRequestAccepted(t *testing.T) {
	f := newFixture(t, nil)
	p384 := newKey(t, elliptic.P384())
	for name, change := range map[string]func(*fixture, *request){
		"P-384": func(f *fixture, r *request) {
			r.alg, r.key, r.jwk = jose.ES384, p384, jose.JSONWebKey{Key: &p384.PublicKey}
		},
		"aud is an array of one": with("aud", []string{attesterURL}),
		"another client":         with("iss", "other-client"),
		"nbf is now":             with("nbf", 1_800_000_000),
		"evidence is null":       with("evidence", nil),
		"unknown claim":          with("wallet_version", "1"),
	} {
		r := f.request()
		change(f, r)
		if f.wantAttestation(f.send(r)); t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestBody: the HTTP request and its JSON.
func TestBody(t *testing.T) {
	f := newFixture(t, nil)
	good := f.request().compact(t)
	cases := map[string]struct{ body, reason string }{
		"empty":            {"", "body"},
		"no JSON":          {"request=" + good, "body"},
		"no request":       {`{"other":"` + good + `"}`, "no request"},
		"not a string":     {`{"request":5}`, "body"},
		"member twice":     {`{"request":"x","request":"` + good + `"}`, "duplicate"},
		"another spelling": {`{"Request":"` + good + `"}`, "no request"},
		"text after it":    {`{"request":"` + good + `"}{}`, "body"},
		"too large":        {`{"request":"` + strings.Repeat("x", 1<<20) + `"}`, "too large"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f.wantRefusal(f.post("/client-attestation", tc.body), http.StatusBadRequest, "invalid_request", tc.reason)
		})
	}
	if len(cases) != 8 {
		t.Errorf("%d cases, want 8", len(cases))
	}
	r := httptest.NewRequest(http.MethodPost, attesterURL+"/client-attestation", strings.NewReader(`{"request":"`+good+`"}`))
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	f.wantRefusal(w, http.StatusBadRequest, "invalid_request", "application/json")
	f.wantAttestation(f.post("/client-attestation", " {\"request\":\""+good+"\"}\n")) // none of that used the challenge up
}

// TestOneText: a request has one text. What decoders of base64url pass over is
// refused.
func TestOneText(t *testing.T) {
	f := newFixture(t, nil)
	good := f.request().compact(t)
	signature := strings.LastIndexByte(good, '.')
	cases := map[string]string{
		"line break at the start":   `\n` + good,
		"line break in the header":  good[:10] + `\n` + good[10:],
		"CR in the payload":         good[:signature-10] + `\r` + good[signature-10:],
		"line break before the dot": good[:signature] + `\n` + good[signature:],
		"line break at the end":     good + `\r\n`,
		"space at the end":          good + " ",
		"space in the signature":    good[:signature+5] + " " + good[signature+5:],
		"padding":                   good + "==",
		"unused bits":               unusedBit(good),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			f.wantRefusal(f.post("/client-attestation", `{"request":"`+text+`"}`), http.StatusBadRequest, "invalid_pop", "malformed")
		})
	}
	if len(cases) != 9 {
		t.Errorf("%d cases, want 9", len(cases))
	}
	f.wantAttestation(f.post("/client-attestation", `{"request":"`+good+`"}`))
}

// unusedBit sets the last bit of a text in base64url, which belongs to no byte: of a
// signature of 64 bytes, for one.
func unusedBit(compact string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(compact) - 1
	return compact[:last] + string(alphabet[strings.IndexByte(alphabet, compact[last])|1])
}

// TestClockSetBack: a challenge that was used stays used, whatever the clock does,
// and one that has expired stays expired; new ones are good.
func TestClockSetBack(t *testing.T) {
	f := newFixture(t, nil)
	used, unused := f.request(), f.request()
	f.wantAttestation(f.send(used))
	start := f.now
	for _, step := range []time.Duration{0, 5 * time.Minute, 6 * time.Minute, 24 * time.Hour} {
		f.now = start.Add(step)
		f.wantAttestation(f.send(f.request())) // time passes
		f.now = start
		f.wantRefusal(f.send(used), http.StatusBadRequest, "invalid_challenge", "")
		if step > 0 {
			f.wantRefusal(f.send(unused), http.StatusBadRequest, "invalid_challenge", "expired")
		}
		f.wantAttestation(f.send(f.request()))
	}
}

// TestChallengeRace: of many requests at once with one challenge, one is served.
func TestChallengeRace(t *testing.T) {
	f := newFixture(t, nil)
	challenge := f.fetchChallenge()
	var wg sync.WaitGroup
	codes := make(chan int, 20)
	for range 20 {
		r := f.request()
		r.claims["challenge"] = challenge
		wg.Go(func() { codes <- f.send(r).Code })
	}
	wg.Wait()
	close(codes)
	served := 0
	for code := range codes {
		if code == http.StatusOK {
			served++
		}
	}
	if served != 1 {
		t.Errorf("%d of 20 requests served, want 1", served)
	}
}
