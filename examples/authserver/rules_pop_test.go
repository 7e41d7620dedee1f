// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/elliptic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
)

// popCases: section 7.2.
var popCases = []ruleCase{
	{name: "7.2(1) none", corrupt: func(f *fixture, c *call) { c.pop = nil },
		status: badRequest, code: attestation, rule: "7.2(1)", reason: "without a proof"},
	{name: "7.2(1) two", corrupt: func(f *fixture, c *call) {
		c.headers.Set("OAuth-Client-Attestation-PoP", c.pop.compact(f.t))
	}, status: badRequest, code: "invalid_request", rule: "7.2(1)", reason: "2 OAuth-Client-Attestation-PoP"},
	{name: "7.2(1) no JWT", corrupt: raw("OAuth-Client-Attestation-PoP", "a.b"),
		status: badRequest, code: attestation, rule: "7.2(1)", reason: "malformed"},
	{name: "7.2(2) typ of the attestation", corrupt: func(f *fixture, c *call) {
		c.pop.header["typ"] = "oauth-client-attestation+jwt"
	}, status: badRequest, code: attestation, rule: "7.2(2)", reason: "typ"},
	{name: "7.2(2) typ of a DPoP proof", corrupt: func(f *fixture, c *call) { c.pop.header["typ"] = "dpop+jwt" },
		status: badRequest, code: attestation, rule: "7.2(2)", reason: "typ"},
	{name: "7.2(2) no aud", corrupt: drop("aud"), status: badRequest, code: attestation, rule: "7.2(2)", reason: "no aud"},
	{name: "7.2(2) no jti", corrupt: drop("jti"), status: badRequest, code: attestation, rule: "7.2(2)", reason: "no jti"},
	{name: "7.2(2) no iat", corrupt: drop("iat"), status: badRequest, code: attestation, rule: "7.2(2)", reason: "no iat"},
	{name: "7.2(2) challenge is a number", corrupt: func(f *fixture, c *call) { c.pop.claims["challenge"] = 7 },
		status: badRequest, code: attestation, rule: "7.2(2)", reason: "malformed"},
	{name: "7.2(3) alg none", corrupt: func(f *fixture, c *call) { c.pop.header["alg"] = "none" },
		status: badRequest, code: attestation, rule: "7.2(3)", reason: `"none"`},
	{name: "7.2(3) a MAC", corrupt: func(f *fixture, c *call) { c.pop.header["alg"] = "HS256" },
		status: badRequest, code: attestation, rule: "7.2(3)", reason: "HS256"},
	{name: "7.2(3) alg that policy leaves out", configure: func(cfg *authserver.Config) {
		cfg.ProofAlgorithms = []jose.SignatureAlgorithm{jose.ES384}
	}, corrupt: func(f *fixture, c *call) {}, status: badRequest, code: attestation, rule: "7.2(3)", reason: "ES256"},
	{name: "7.2(4) another key", corrupt: func(f *fixture, c *call) { c.pop.key = f.dpop },
		status: badRequest, code: attestation, rule: "7.2(4)", reason: "signature"},
	{name: "7.2(4) another key, named in the header", corrupt: func(f *fixture, c *call) {
		c.pop.key = f.dpop
		c.pop.header["jwk"] = publicJWK(f.t, f.dpop)
	}, status: badRequest, code: attestation, rule: "7.2(4)", reason: "signature"},
	{name: "7.2(4) alg of another curve", corrupt: func(f *fixture, c *call) {
		c.pop.key = newKey(f.t, elliptic.P384())
		c.pop.header["alg"] = "ES384"
	}, status: badRequest, code: attestation, rule: "7.2(4)", reason: "signature"},
	{name: "7.2(5) no challenge", corrupt: drop("challenge"),
		status: badRequest, code: "use_attestation_challenge", rule: "7.2(5)", reason: "no challenge"},
	{name: "7.2(5) made-up challenge", corrupt: func(f *fixture, c *call) { c.pop.claims["challenge"] = "5c1a9e10-29ff" },
		status: badRequest, code: "use_attestation_challenge", rule: "7.2(5)", reason: "not a challenge of this server"},
	{name: "7.2(5) old challenge", corrupt: func(f *fixture, c *call) {
		f.now = f.now.Add(5 * time.Minute)
		c.pop.claims["iat"] = f.now.Unix()
	}, status: badRequest, code: "use_attestation_challenge", rule: "7.2(5)", reason: "expired"},
	{name: "7.2(5) no challenge where they come with errors only", configure: func(cfg *authserver.Config) {
		cfg.Challenges = &authserver.ChallengeConfig{}
	}, corrupt: func(f *fixture, c *call) {}, status: badRequest, code: "use_attestation_challenge", rule: "7.2(5)", reason: "no challenge"},
	{name: "7.2(6) too old", corrupt: func(f *fixture, c *call) { c.pop.claims["iat"] = f.now.Add(-time.Minute).Unix() },
		status: badRequest, code: attestation, rule: "7.2(6)", reason: "1m0s in the past"},
	{name: "7.2(6) too old for a short window", configure: func(cfg *authserver.Config) { cfg.ProofWindow = 15 * time.Second },
		corrupt: func(f *fixture, c *call) { c.pop.claims["iat"] = f.now.Add(-15 * time.Second).Unix() },
		status:  badRequest, code: attestation, rule: "7.2(6)", reason: "15s in the past"},
	{name: "7.2(6) from the future", corrupt: func(f *fixture, c *call) { c.pop.claims["iat"] = f.now.Add(11 * time.Second).Unix() },
		status: badRequest, code: attestation, rule: "7.2(6)", reason: "11s in the future"},
	{name: "7.2(6) after its own exp", corrupt: func(f *fixture, c *call) { c.pop.claims["exp"] = f.now.Add(-time.Minute).Unix() },
		status: badRequest, code: attestation, rule: "7.2(6)", reason: "its exp"},
	{name: "7.2(6) before its own nbf", corrupt: func(f *fixture, c *call) { c.pop.claims["nbf"] = f.now.Add(time.Minute).Unix() },
		status: badRequest, code: attestation, rule: "7.2(6)", reason: "its nbf"},
	{name: "7.2(7) token endpoint", corrupt: audience(issuer + "/token"),
		status: badRequest, code: attestation, rule: "7.2(7)", reason: "not the issuer"},
	{name: "7.2(7) issuer with a slash", corrupt: audience(issuer + "/"),
		status: badRequest, code: attestation, rule: "7.2(7)", reason: "not the issuer"},
	{name: "7.2(7) two audiences", corrupt: audience([]string{issuer, "https://rs.example.com"}),
		status: badRequest, code: attestation, rule: "7.2(7)", reason: "not the issuer"},
	{name: "7.2(8) replay", corrupt: func(f *fixture, c *call) { f.wantToken(f.send(c), "Bearer") },
		status: badRequest, code: attestation, rule: "7.2(8)", reason: "already used"},
}
