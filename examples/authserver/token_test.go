// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

const (
	challengeHeader = "OAuth-Client-Attestation-Challenge"
	nonceHeader     = "DPoP-Nonce"
)

// TestChallengeModesS7S8S9: where challenges and nonces come from in each
// configuration, on success and on error.
func TestChallengeModesS7S8S9(t *testing.T) {
	cases := []struct {
		name                                    string
		configure                               func(*authserver.Config)
		endpoint, onChallenge, onToken, onError bool // where a challenge is found
		nonce                                   bool // on all of them
	}{
		{name: "S5 none", configure: noChallenges},
		{name: "S6 only with the error", configure: challengeMode(false, false), onError: true},
		{name: "S7 on responses", configure: challengeMode(false, true), onToken: true, onError: true},
		{name: "S8 endpoint", configure: challengeMode(true, false), endpoint: true, onError: true},
		{name: "S7 and S8", configure: challengeMode(true, true), endpoint: true, onChallenge: true, onToken: true, onError: true},
		{name: "S9 endpoint with DPoP nonces", configure: func(cfg *authserver.Config) {
			challengeMode(true, false)(cfg)
			cfg.DPoPNonces = true
		}, endpoint: true, onError: true, nonce: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, tc.configure)
			w := f.do(httptest.NewRequest(http.MethodPost, issuer+"/challenge", nil))
			if got := w.Code == http.StatusOK; got != tc.endpoint {
				t.Fatalf("challenge endpoint answers %d", w.Code)
			}
			if tc.endpoint {
				if got := w.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("Cache-Control %q", got)
				}
				if got := w.Header().Get("Content-Type"); got != "application/json" {
					t.Errorf("Content-Type %q", got)
				}
				header := w.Header().Get(challengeHeader)
				if tc.onChallenge != (header != "") || header != "" && header != body(t, w)["attestation_challenge"] {
					t.Errorf("challenge endpoint has header %q, body %s", header, w.Body)
				}
				f.wantNonce(w, tc.nonce)
			}

			c := f.pop()
			delete(c.pop.claims, "challenge")
			w = f.send(c)
			got := w.Header().Get(challengeHeader)
			if (got != "") != tc.onError {
				t.Errorf("without a challenge: %d, header %q", w.Code, got)
			}
			f.wantNonce(w, tc.nonce)
			if tc.onError {
				f.wantRefusal(w, badRequest, "use_attestation_challenge", "7.2(5)", "no challenge")
				c.pop.claims["challenge"] = got
				w = f.send(c)
			}
			f.wantToken(w, "Bearer")
			if got := w.Header().Get(challengeHeader); (got != "") != tc.onToken {
				t.Errorf("token response has challenge %q", got)
			}
			f.wantNonce(w, tc.nonce)
		})
	}
}

func (f *fixture) wantNonce(w *httptest.ResponseRecorder, want bool) {
	f.t.Helper()
	if got := w.Header().Get(nonceHeader); (got != "") != want {
		f.t.Errorf("DPoP-Nonce %q, want one: %v", got, want)
	}
}

func challengeMode(endpoint, responses bool) func(*authserver.Config) {
	return func(cfg *authserver.Config) {
		cfg.Challenges = &authserver.ChallengeConfig{Endpoint: endpoint, Responses: responses}
	}
}

func singleUse(cfg *authserver.Config) { cfg.Challenges.SingleUse = true }

// TestChallengeReuse: a challenge is good for any number of PoPs until it
// expires, or for one, by configuration (section 6).
func TestChallengeReuse(t *testing.T) {
	f := newFixture(t, nil)
	challenge := f.fetchChallenge()
	for range 3 {
		c := f.pop()
		c.pop.claims["challenge"] = challenge
		f.wantToken(f.send(c), "Bearer")
	}

	f = newFixture(t, singleUse)
	challenge = f.fetchChallenge()
	with := func() *call {
		c := f.pop()
		c.pop.claims["challenge"] = challenge
		return c
	}
	// S10: a PoP that fails another check does not use the challenge up.
	c := with()
	c.pop.claims["aud"] = "https://other.example.com"
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(7)", "not the issuer")
	f.wantToken(f.send(with()), "Bearer")
	for range 2 { // remembered for as long as it could be used
		f.wantRefusal(f.send(with()), badRequest, "use_attestation_challenge", "7.2(5)", "already used")
		f.now = f.now.Add(5*time.Minute - 1)
	}
}

// TestReplayS10S11: what is remembered, and when.
func TestReplayS10S11(t *testing.T) {
	f := newFixture(t, nil)
	c := f.pop()
	// A PoP that fails uses its jti up no more than its challenge.
	good := c.pop.claims["challenge"]
	c.pop.claims["challenge"] = "made up"
	f.wantRefusal(f.send(c), badRequest, "use_attestation_challenge", "7.2(5)", "not a challenge")
	c.pop.claims["challenge"] = good
	f.wantToken(f.send(c), "Bearer")
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(8)", "already used")

	// At every moment at which its iat is accepted, the jti is remembered: also
	// with an iat as far ahead as is allowed.
	c = f.pop()
	c.pop.claims["iat"] = f.now.Add(10 * time.Second).Unix()
	f.wantToken(f.send(c), "Bearer")
	f.now = f.now.Add(69 * time.Second)
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(8)", "already used")
	f.now = f.now.Add(time.Second)
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(6)", "in the past")

	// Another instance may have the same jti by chance.
	c, other := f.pop(), f.pop()
	f.wantToken(f.send(c), "Bearer")
	other.pop.claims["jti"] = c.pop.claims["jti"]
	other.attestation.claims["cnf"] = object{"jwk": publicJWK(t, f.dpop)}
	other.pop.key = f.dpop
	f.wantToken(f.send(other), "Bearer")
}

// TestReplayRaceS11: of many requests at once with the same PoP, or with the
// same single-use challenge, one gets its token.
func TestReplayRaceS11(t *testing.T) {
	f := newFixture(t, singleUse)
	samePoP := f.pop()
	sameChallenge := make([]*call, 20)
	challenge := f.fetchChallenge()
	for i := range sameChallenge {
		sameChallenge[i] = f.pop()
		sameChallenge[i].pop.claims["challenge"] = challenge
	}
	for name, calls := range map[string][]*call{"same challenge": sameChallenge, "same PoP": {samePoP, samePoP, samePoP, samePoP}} {
		if granted := f.sendAtOnce(calls...); granted != 1 {
			t.Errorf("%s: %d of %d got a token, want 1", name, granted, len(calls))
		}
	}
}

// sendAtOnce returns how many of the calls got a token.
func (f *fixture) sendAtOnce(calls ...*call) (granted int) {
	var wg sync.WaitGroup
	codes := make(chan int, len(calls))
	for _, c := range calls {
		wg.Go(func() { codes <- f.send(c).Code })
	}
	wg.Wait()
	close(codes)
	for code := range codes {
		if code == http.StatusOK {
			granted++
		}
	}
	return granted
}

func TestDPoPNonces(t *testing.T) {
	f := newFixture(t, nonces)
	// Beside a PoP JWT: the PoP passes, the proof lacks its nonce.
	w := f.send(f.withDPoP(f.pop(), f.dpop))
	f.wantRefusal(w, badRequest, "use_dpop_nonce", "RFC 9449 4.3(10)", "nonce")
	c := f.withDPoP(f.pop(), f.dpop)
	c.dpop.claims["nonce"] = w.Header().Get(nonceHeader)
	f.wantToken(f.send(c), "DPoP")
	// S9: the nonce of the challenge endpoint is as good.
	w = f.do(httptest.NewRequest(http.MethodPost, issuer+"/challenge", nil))
	c = f.combined()
	c.dpop.claims["nonce"] = w.Header().Get(nonceHeader)
	f.wantToken(f.send(c), "DPoP")
}

// refreshCall is a refresh with everything right.
func (f *fixture) refreshCall(token any) *call {
	c := f.pop()
	c.form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}}
	return c
}

func TestRefreshS12(t *testing.T) {
	f := newFixture(t, nil)
	c := f.pop()
	c.form.Set("scope", "read write")
	first := f.wantToken(f.send(c), "Bearer")

	// S12: another instance of the same client, with an attestation of its own.
	c = f.refreshCall(first["refresh_token"])
	c.attestation.claims["cnf"] = object{"jwk": publicJWK(t, f.dpop)}
	c.pop.key = f.dpop
	f.wantRefusal(f.send(c), badRequest, "invalid_grant", "10.3", "another Client Instance Key")

	// Another client with the same key.
	c = f.combined()
	c.form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first["refresh_token"].(string)}}
	f.wantRefusal(f.send(c), badRequest, "invalid_grant", "RFC 6749 6", "another client")

	// More scope than granted; then less, which does not narrow the grant.
	c = f.refreshCall(first["refresh_token"])
	c.form.Set("scope", "read admin")
	f.wantRefusal(f.send(c), badRequest, "invalid_scope", "RFC 6749 3.3", "admin")
	c = f.refreshCall(first["refresh_token"])
	c.form.Set("scope", "read")
	second := f.wantToken(f.send(c), "Bearer")
	if second["scope"] != "read" || second["refresh_token"] == first["refresh_token"] {
		t.Errorf("second answer %v", second)
	}

	// None of the refusals used the token up; the success did. The new one is
	// good with a new attestation over the same key.
	f.wantRefusal(f.send(f.refreshCall(first["refresh_token"])), badRequest, "invalid_grant", "RFC 6749 6", "used already")
	f.now = f.now.Add(time.Hour)
	third := f.wantToken(f.send(f.refreshCall(second["refresh_token"])), "Bearer")
	if third["scope"] != "read write" {
		t.Errorf("scope %q, want that of the grant", third["scope"])
	}
	f.now = f.now.Add(30 * 24 * time.Hour)
	f.wantRefusal(f.send(f.refreshCall(third["refresh_token"])), badRequest, "invalid_grant", "RFC 6749 6", "expired")

	// Two at once with the same token: one wins.
	token := f.wantToken(f.send(f.pop()), "Bearer")["refresh_token"]
	if granted := f.sendAtOnce(f.refreshCall(token), f.refreshCall(token), f.refreshCall(token)); granted != 1 {
		t.Errorf("%d of 3 refreshes granted, want 1", granted)
	}
}

func TestTokenRequestForm(t *testing.T) {
	cases := []struct {
		name, code, rule, reason string
		corrupt                  func(*call)
	}{
		{"parameters in the URL", "invalid_request", "RFC 6749 3.2", "URL", func(c *call) { c.url += "?client_id=" + clientID }},
		{"JSON", "invalid_request", "RFC 6749 3.2", "x-www-form-urlencoded", func(c *call) { c.contentType = "application/json" }},
		{"no content type", "invalid_request", "RFC 6749 3.2", "x-www-form-urlencoded", func(c *call) { c.contentType = "" }},
		{"parameter twice", "invalid_request", "RFC 6749 3.2", "2 times", func(c *call) { c.form.Add("client_id", clientID) }},
		{"bad escape", "invalid_request", "RFC 6749 3.2", "body", func(c *call) { c.body = "grant_type=%zz" }},
		{"too large", "invalid_request", "RFC 6749 3.2", "too large", func(c *call) { c.form.Set("x", strings.Repeat("x", 64<<10)) }},
		{"no grant type", "invalid_request", "RFC 6749 4", "no grant_type", func(c *call) { c.form.Del("grant_type") }},
		{"unknown grant type", "unsupported_grant_type", "RFC 6749 5.2", "password", func(c *call) { c.form.Set("grant_type", "password") }},
		{"unknown scope", "invalid_scope", "RFC 6749 3.3", "admin", func(c *call) { c.form.Set("scope", "read admin") }},
		{"no refresh token", "invalid_request", "RFC 6749 6", "no refresh_token", func(c *call) { c.form.Set("grant_type", "refresh_token") }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, nil)
			c := f.pop()
			tc.corrupt(c)
			f.wantRefusal(f.send(c), badRequest, tc.code, tc.rule, tc.reason)
		})
	}
	f := newFixture(t, func(cfg *authserver.Config) { cfg.RefreshTokens = false })
	if answer := f.wantToken(f.send(f.pop()), "Bearer"); answer["refresh_token"] != nil {
		t.Error("refresh token, though the configuration has none")
	}
	f.wantRefusal(f.send(f.refreshCall("x")), badRequest, "unsupported_grant_type", "RFC 6749 5.2", "refresh_token")
}
