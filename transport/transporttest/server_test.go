// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/transport"
	. "github.com/instancekey/instancekey/transport/transporttest"
)

// steady is for tests that say which challenges are refused.
var steady = Policy{NoRandomRefusals: true}

// TestStrict sends requests that are wrong in one thing.
func TestStrict(t *testing.T) {
	other := newKey()
	now := time.Now().Unix()
	attest := func(edit func(map[string]any)) func(*client, *parts) {
		return func(c *client, p *parts) { p.attestation = []string{c.server.Attester.Attest(&c.key.PublicKey, edit)} }
	}
	pop := func(edit func(*forger)) func(*client, *parts) {
		return func(c *client, p *parts) { p.pop = []string{c.pop(c.challenge(), edit)} }
	}
	tests := []struct {
		name   string
		change func(*client, *parts)
		status int
		code   string
	}{
		{"nothing", func(*client, *parts) {}, 200, ""},
		{"extra claims", pop(claim("iss", "client")), 200, ""},
		{"client_id", func(_ *client, p *parts) { p.body = "client_id=client" }, 200, ""},

		{"GET", func(_ *client, p *parts) { p.method = "GET" }, 405, "invalid_request"},
		{"no attestation", func(_ *client, p *parts) { p.attestation = nil }, 401, "invalid_client"},
		{"two attestations", func(_ *client, p *parts) { p.attestation = append(p.attestation, p.attestation...) }, 400, "invalid_request"},
		{"attestation with a comma", func(_ *client, p *parts) { p.attestation[0] += ", " + p.attestation[0] }, 401, "invalid_client"},
		{"attestation padded", func(_ *client, p *parts) { p.attestation[0] += "=" }, 401, "invalid_client"},
		{"attestation by another attester", func(c *client, p *parts) {
			p.attestation = []string{New(t, Config{}).Attester.Attest(&c.key.PublicKey)}
		}, 401, "invalid_client"},
		{"attestation that is a PoP", func(_ *client, p *parts) { p.attestation = p.pop }, 401, "invalid_client"},
		{"attestation expired", attest(func(m map[string]any) { m["exp"] = now - 1 }), 401, "invalid_client"},
		{"attestation without exp", attest(func(m map[string]any) { delete(m, "exp") }), 401, "invalid_client"},
		{"attestation for another client", attest(func(m map[string]any) { m["sub"] = "x" }), 401, "invalid_client"},
		{"attestation without cnf", attest(func(m map[string]any) { delete(m, "cnf") }), 401, "invalid_client"},
		{"attestation with a private key", func(c *client, p *parts) {
			p.attestation = []string{c.server.Attester.Attest(nil, func(m map[string]any) { m["cnf"] = map[string]any{"jwk": jose.JSONWebKey{Key: c.key}} })}
		}, 401, "invalid_client"},
		{"attestation for another key", func(c *client, p *parts) {
			p.attestation = []string{c.server.Attester.Attest(&other.PublicKey)}
		}, 401, "invalid_client"},
		{"client_id of another", func(_ *client, p *parts) { p.body = "client_id=x" }, 401, "invalid_client"},

		{"no PoP", func(_ *client, p *parts) { p.pop = nil }, 401, "invalid_client"},
		{"two PoPs", func(c *client, p *parts) { p.pop = append(p.pop, c.pop(c.challenge())) }, 401, "invalid_client"},
		{"PoP by another key", pop(func(f *forger) { f.key = other }), 401, "invalid_client"},
		{"PoP with a MAC", pop(func(f *forger) { f.alg, f.key = jose.HS256, make([]byte, 32) }), 401, "invalid_client"},
		{"PoP of no type", pop(func(f *forger) { f.typ = "JWT" }), 401, "invalid_client"},
		{"PoP of DPoP's type", pop(func(f *forger) { f.typ = "dpop+jwt" }), 401, "invalid_client"},
		{"PoP with jwk", pop(func(f *forger) { f.embed = true }), 401, "invalid_client"},
		{"PoP with kid", pop(func(f *forger) { f.header = map[jose.HeaderKey]any{"kid": "x"} }), 401, "invalid_client"},
		{"PoP for another audience", pop(claim("aud", "https://x.example")), 401, "invalid_client"},
		{"PoP with an array as audience", func(c *client, p *parts) {
			p.pop = []string{c.pop(c.challenge(), claim("aud", []string{c.server.Issuer}))}
		}, 401, "invalid_client"},
		{"PoP for the token endpoint", func(c *client, p *parts) {
			p.pop = []string{c.pop(c.challenge(), claim("aud", c.server.Endpoint(Token)))}
		}, 401, "invalid_client"},
		{"PoP without aud", pop(claim("aud", nil)), 401, "invalid_client"},
		{"PoP without jti", pop(claim("jti", nil)), 401, "invalid_client"},
		{"PoP without iat", pop(claim("iat", nil)), 401, "invalid_client"},
		{"PoP of a minute ago", pop(claim("iat", now-60)), 401, "invalid_client"},
		{"PoP of the next minute", pop(claim("iat", now+60)), 401, "invalid_client"},
		{"PoP with iat in milliseconds", pop(claim("iat", now*1000)), 401, "invalid_client"},
		{"PoP with iat in parts of a second", pop(claim("iat", float64(now)+0.5)), 401, "invalid_client"},
		{"PoP with iat as text", pop(claim("iat", fmt.Sprint(now))), 401, "invalid_client"},
		{"PoP without challenge", pop(claim("challenge", nil)), 400, "use_attestation_challenge"},
		{"PoP with a challenge of its own", pop(claim("challenge", "mine")), 400, "use_attestation_challenge"},
		{"PoP with a number as challenge", pop(claim("challenge", 5)), 401, "invalid_client"},
		{"PoP sent before", func(c *client, p *parts) { c.do(*p) }, 401, "invalid_client"},

		{"DPoP beside", func(c *client, p *parts) { p.dpop = []string{c.proof()} }, 200, ""},
		{"DPoP by another key", func(c *client, p *parts) { p.dpop = []string{c.proof(func(f *forger) { f.key = other })} }, 200, ""},
		{"two DPoP", func(c *client, p *parts) { p.dpop = []string{c.proof(), c.proof()} }, 400, "invalid_dpop_proof"},
		{"DPoP without jwk", func(c *client, p *parts) { p.dpop = []string{c.proof(func(f *forger) { f.embed = false })} }, 400, "invalid_dpop_proof"},
		{"DPoP for another URL", func(c *client, p *parts) { p.dpop = []string{c.proof(claim("htu", c.server.Issuer))} }, 400, "invalid_dpop_proof"},
		{"DPoP for another method", func(c *client, p *parts) { p.dpop = []string{c.proof(claim("htm", "GET"))} }, 400, "invalid_dpop_proof"},
		{"DPoP of yesterday", func(c *client, p *parts) { p.dpop = []string{c.proof(claim("iat", now-86400))} }, 400, "invalid_dpop_proof"},
		{"DPoP with the PoP's jti", func(c *client, p *parts) {
			p.dpop = []string{c.proof(claim("jti", fmt.Sprint("id", c.serial)))}
		}, 400, "invalid_dpop_proof"},
		{"DPoP without a PoP", func(c *client, p *parts) { p.dpop, p.pop = []string{c.proof()}, nil }, 401, "invalid_client"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, Config{Policy: steady})
			p := parts{attestation: []string{c.server.Attester.Attest(&c.key.PublicKey)}, pop: []string{c.pop(c.challenge())}}
			test.change(c, &p)
			resp := c.do(p)
			code := c.code(resp)
			requests := c.server.Requests(Token)
			last := requests[len(requests)-1]
			if resp.StatusCode != test.status || code != test.code {
				t.Errorf("%d %q (%s), want %d %q", resp.StatusCode, code, last.Reason, test.status, test.code)
			}
			if last.Status != resp.StatusCode || last.Code != code || (last.Reason == "") != (code == "") {
				t.Errorf("recorded as %d %q %q", last.Status, last.Code, last.Reason)
			}
			if (resp.Header.Get(transport.HeaderChallenge) != "") != (code == "use_attestation_challenge") || resp.Header.Get(transport.HeaderChallenge) != last.Offered() {
				t.Errorf("challenge %q in the answer, recorded %q", resp.Header.Get(transport.HeaderChallenge), last.Offered())
			}
		})
	}
}

// TestCombined: the other method.
func TestCombined(t *testing.T) {
	c := newClient(t, Config{Policy: Policy{Combined: true, Nonces: true}})
	attestation := []string{c.server.Attester.Attest(&c.key.PublicKey)}
	resp := c.do(parts{attestation: attestation, dpop: []string{c.proof()}})
	nonce := resp.Header.Get("DPoP-Nonce")
	if code := c.code(resp); code != "use_dpop_nonce" || nonce == "" || resp.StatusCode != 400 {
		t.Errorf("%d %q with nonce %q", resp.StatusCode, code, nonce)
	}
	if got := c.do(parts{endpoint: Challenge}).Header.Get("DPoP-Nonce"); got != nonce {
		t.Errorf("the challenge endpoint gave nonce %q", got)
	}
	with := func(f *forger) { f.claims["nonce"] = nonce }
	if code := c.code(c.do(parts{attestation: attestation, dpop: []string{c.proof(with)}})); code != "" {
		t.Errorf("with the nonce: %s", code)
	}
	if code := c.code(c.do(parts{attestation: attestation, dpop: []string{c.proof(with, func(f *forger) { f.key = newKey() })}})); code != "invalid_client" {
		t.Errorf("another key: %q", code)
	}
	if code := c.code(c.do(parts{attestation: attestation, dpop: []string{c.proof(with)}, pop: []string{c.pop("")}})); code != "invalid_client" {
		t.Errorf("with a PoP JWT: %q", code)
	}
	c.server.RotateNonce()
	if code := c.code(c.do(parts{attestation: attestation, dpop: []string{c.proof(with)}})); code != "use_dpop_nonce" {
		t.Errorf("after rotation: %q", code)
	}
}

// TestChallengePolicies: which challenges are good how often.
func TestChallengePolicies(t *testing.T) {
	send := func(c *client, challenge string) (string, string) {
		resp := c.do(parts{attestation: []string{c.server.Attester.Attest(&c.key.PublicKey)}, pop: []string{c.pop(challenge)}})
		return c.code(resp), resp.Header.Get(transport.HeaderChallenge)
	}
	const refused = "use_attestation_challenge"
	t.Run("reusable", func(t *testing.T) {
		c := newClient(t, Config{Policy: steady})
		challenge := c.challenge()
		if again := c.challenge(); again != challenge {
			t.Error("a reusable server gives another challenge each time")
		}
		for range 2 {
			if code, offered := send(c, challenge); code != "" || offered != "" {
				t.Error(code, offered)
			}
		}
		c.server.Rotate()
		if code, offered := send(c, challenge); code != refused || offered == "" || offered == challenge {
			t.Error(code, offered)
		}
		if n := c.server.Refused(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
	t.Run("single use", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{NoRandomRefusals: true, Kind: SingleUse, Offer: OfferAlways}})
		challenge := c.challenge()
		code, next := send(c, challenge)
		if code != "" || next == "" || next == challenge {
			t.Error(code, next)
		}
		if code, _ := send(c, challenge); code != refused {
			t.Error(code)
		}
		if code, _ := send(c, next); code != "" {
			t.Error(code)
		}
	})
	t.Run("every second", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{NoRandomRefusals: true, RefuseEvery: 2}})
		for i, want := range []string{"", refused, "", refused} {
			if code, _ := send(c, c.challenge()); code != want {
				t.Errorf("request %d: %q", i, code)
			}
		}
	})
	t.Run("the same again", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{RefuseAll: true, RepeatRefused: true}})
		challenge := c.challenge()
		if code, offered := send(c, challenge); code != refused || offered != challenge {
			t.Error(code, offered)
		}
	})
	t.Run("no header", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{RefuseAll: true, Offer: OfferNever, Status: 401}})
		if code, offered := send(c, c.challenge()); code != refused || offered != "" || c.server.Requests(Token)[0].Status != 401 {
			t.Error(code, offered)
		}
	})
	t.Run("huge", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{ChallengeBytes: 9000}})
		if n := len(c.challenge()); n != 9000 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("none", func(t *testing.T) {
		c := newClient(t, Config{Policy: Policy{Kind: NoChallenges}})
		if code, offered := send(c, ""); code != "" || offered != "" {
			t.Error(code, offered)
		}
	})
	t.Run("denied and unknown", func(t *testing.T) {
		c := newClient(t, Config{})
		attestation := c.server.Attester.Attest(&c.key.PublicKey)
		c.server.Deny(attestation)
		p := parts{attestation: []string{attestation}, pop: []string{c.pop(c.challenge())}}
		if code := c.code(c.do(p)); code != "use_fresh_attestation" {
			t.Error(code)
		}
		c.server.Set(func(p *Policy) { p.UnknownClient = true })
		if code := c.code(c.do(p)); code != "invalid_client" {
			t.Error(code)
		}
	})
}

// TestSeed: two servers of one seed are alike, others not.
func TestSeed(t *testing.T) {
	path := func(seed uint64) string {
		s := New(t, Config{Seed: seed})
		return strings.TrimPrefix(s.Endpoint(Token), s.URL)
	}
	if first, again, other := path(1), path(1), path(2); first != again || first == other {
		t.Error("paths do not follow the seed")
	}
}

// TestProfile: the server wants the type and the subject that a profile has, and
// its attester gives them.
func TestProfile(t *testing.T) {
	profile := Config{Policy: steady, AttestationType: "wit+jwt", Subject: "spiffe://example.org/meter"}
	for name, test := range map[string]struct {
		by     Config // whose attestation it is
		edit   func(map[string]any)
		reason string
	}{
		"as the profile has it": {profile, func(map[string]any) {}, ""},
		"the draft's type":      {Config{Subject: profile.Subject}, func(map[string]any) {}, "typ is oauth-client-attestation+jwt"},
		"client_id as subject":  {profile, func(m map[string]any) { m["sub"] = "client" }, "sub is client"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, profile)
			attester := c.server.Attester
			if test.by.AttestationType != profile.AttestationType {
				attester = New(t, test.by).Attester
			}
			attestation := attester.Attest(&c.key.PublicKey, test.edit)
			c.do(parts{attestation: []string{attestation}, pop: []string{c.pop(c.challenge())}, body: "client_id=client"})
			request := c.server.Requests(Token)[0]
			if (request.Code == "") != (test.reason == "") || !strings.Contains(request.Reason, test.reason) {
				t.Errorf("%d %q (%s), want %q", request.Status, request.Code, request.Reason, test.reason)
			}
		})
	}
}
