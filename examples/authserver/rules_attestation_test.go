// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"encoding/base64"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
)

// attestationCases: section 7.1.
var attestationCases = []ruleCase{
	{name: "7.1(1) none", corrupt: func(f *fixture, c *call) { c.attestation = nil },
		status: badClient, code: "invalid_client", rule: "7.1(1)", reason: "no OAuth-Client-Attestation header"},
	{name: "7.1(1) two, the same", corrupt: func(f *fixture, c *call) {
		c.headers.Set("OAuth-Client-Attestation", c.attestation.compact(f.t))
	}, status: badRequest, code: "invalid_request", rule: "7.1(1)", reason: "2 OAuth-Client-Attestation"},
	{name: "7.1(1) two in one field", corrupt: func(f *fixture, c *call) {
		jwt := c.attestation.compact(f.t)
		c.attestation = nil
		c.headers.Set("OAuth-Client-Attestation", jwt+", "+jwt)
	}, status: badRequest, code: attestation, rule: "7.1(1)", reason: "malformed"},
	{name: "7.1(1) empty", corrupt: raw("OAuth-Client-Attestation", ""),
		status: badRequest, code: attestation, rule: "7.1(1)", reason: "malformed"},
	{name: "7.1(1) no JWT", corrupt: raw("OAuth-Client-Attestation", "token68+but/no.JWT=="),
		status: badRequest, code: attestation, rule: "7.1(1)", reason: "malformed"},
	{name: "7.1(2) no typ", corrupt: func(f *fixture, c *call) { delete(c.attestation.header, "typ") },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "typ"},
	{name: "7.1(2) typ JWT", corrupt: func(f *fixture, c *call) { c.attestation.header["typ"] = "JWT" },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "typ"},
	{name: "7.1(2) typ of the PoP", corrupt: func(f *fixture, c *call) {
		c.attestation.header["typ"] = "oauth-client-attestation-pop+jwt"
	}, status: badRequest, code: attestation, rule: "7.1(2)", reason: "typ"},
	{name: "7.1(2) no sub", corrupt: func(f *fixture, c *call) { delete(c.attestation.claims, "sub") },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "no sub"},
	{name: "7.1(2) sub is a number", corrupt: func(f *fixture, c *call) { c.attestation.claims["sub"] = 5 },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "malformed"},
	{name: "7.1(2) no iat", corrupt: func(f *fixture, c *call) { delete(c.attestation.claims, "iat") },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "no iat"},
	{name: "7.1(2) no exp", corrupt: func(f *fixture, c *call) { delete(c.attestation.claims, "exp") },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "no exp"},
	{name: "7.1(2) exp is a string", corrupt: func(f *fixture, c *call) { c.attestation.claims["exp"] = "2000000000" },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "malformed"},
	{name: "7.1(2) no cnf", corrupt: func(f *fixture, c *call) { delete(c.attestation.claims, "cnf") },
		status: badRequest, code: attestation, rule: "7.1(2)", reason: "no cnf.jwk"},
	{name: "7.1(2) cnf is a jkt", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["cnf"] = object{"jkt": thumbprint(f.t, f.instance)}
	}, status: badRequest, code: attestation, rule: "7.1(2)", reason: "no cnf.jwk"},
	{name: "7.1(2) cnf.jwk off the curve", corrupt: func(f *fixture, c *call) {
		jwk := publicJWK(f.t, f.instance)
		jwk["x"] = jwk["y"]
		c.attestation.claims["cnf"] = object{"jwk": jwk}
	}, status: badRequest, code: attestation, rule: "7.1(2)", reason: "cnf.jwk"},
	{name: "7.1(2) a claim twice", corrupt: func(f *fixture, c *call) {
		c.attestation.rawClaims = `{"sub":"stranger","sub":"` + clientID + `","exp":2000000000,"cnf":{}}`
	}, status: badRequest, code: attestation, rule: "7.1(2)", reason: "duplicate"},
	{name: "4 crit", corrupt: func(f *fixture, c *call) {
		c.attestation.header["crit"] = []string{"exp"}
		c.attestation.header["exp"] = 5
	}, status: badRequest, code: attestation, rule: "7.1(1)", reason: "crit"},
	{name: "7.1(3) alg none", corrupt: func(f *fixture, c *call) { c.attestation.header["alg"] = "none" },
		status: badRequest, code: attestation, rule: "7.1(3)", reason: `"none"`},
	{name: "7.1(3) no alg", corrupt: func(f *fixture, c *call) { delete(c.attestation.header, "alg") },
		status: badRequest, code: attestation, rule: "7.1(3)", reason: `""`},
	{name: "7.1(3) a MAC", corrupt: func(f *fixture, c *call) { c.attestation.header["alg"] = "HS256" },
		status: badRequest, code: attestation, rule: "7.1(3)", reason: "HS256"},
	{name: "7.1(3) alg that policy leaves out", configure: func(cfg *authserver.Config) {
		cfg.AttestationAlgorithms = []jose.SignatureAlgorithm{jose.ES384}
	}, corrupt: func(f *fixture, c *call) {}, status: badRequest, code: attestation, rule: "7.1(3)", reason: "ES256"},
	{name: "7.1(4) other key, trusted kid", corrupt: func(f *fixture, c *call) { c.attestation.key = f.instance },
		status: badRequest, code: attestation, rule: "7.1(4)", reason: "signature"},
	{name: "7.1(4) unknown kid", corrupt: func(f *fixture, c *call) { c.attestation.header["kid"] = "other" },
		status: badRequest, code: attestation, rule: "7.1(4)", reason: "no trusted attester key"},
	{name: "7.1(4) no kid", corrupt: func(f *fixture, c *call) { delete(c.attestation.header, "kid") },
		status: badRequest, code: attestation, rule: "7.1(4)", reason: "no trusted attester key"},
	{name: "7.1(4) key in the JWT's own header", corrupt: func(f *fixture, c *call) {
		c.attestation.header["jwk"] = publicJWK(f.t, f.instance)
		c.attestation.key = f.instance
	}, status: badRequest, code: attestation, rule: "7.1(4)", reason: "signature"},
	{name: "7.1(4) key registered for another alg", configure: func(cfg *authserver.Config) {
		cfg.AttesterKeys.Keys[0].Algorithm = "ES384"
	}, corrupt: func(f *fixture, c *call) {}, status: badRequest, code: attestation, rule: "7.1(4)", reason: "is for ES384"},
	{name: "7.1(5) private key in cnf", corrupt: func(f *fixture, c *call) {
		jwk := publicJWK(f.t, f.instance)
		d, err := f.instance.Bytes()
		if err != nil {
			f.t.Fatal(err)
		}
		jwk["d"] = base64.RawURLEncoding.EncodeToString(d)
		c.attestation.claims["cnf"] = object{"jwk": jwk}
	}, status: badRequest, code: attestation, rule: "7.1(5)", reason: "private"},
	{name: "7.1(5) symmetric key in cnf", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["cnf"] = object{"jwk": object{"kty": "oct", "k": "AAAA"}}
	}, status: badRequest, code: attestation, rule: "7.1(5)", reason: "private"},
	{name: "7.1(6) expired", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["exp"] = f.now.Add(-10 * time.Second).Unix()
	}, status: badRequest, code: "use_fresh_attestation", rule: "7.1(6)", reason: "expired"},
	{name: "7.1(6) too old by policy", configure: maxAge, corrupt: func(f *fixture, c *call) {
		c.attestation.claims["iat"] = f.now.Add(-601 * time.Second).Unix()
	}, status: badRequest, code: "use_fresh_attestation", rule: "7.1(6)", reason: "older than 10m0s"},
	{name: "7.1(6) from the future", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["iat"] = f.now.Add(11 * time.Second).Unix()
	}, status: badRequest, code: attestation, rule: "7.1(6)", reason: "future"},
	{name: "7.1(6) not valid yet", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["nbf"] = f.now.Add(11 * time.Second).Unix()
	}, status: badRequest, code: attestation, rule: "7.1(6)", reason: "not valid yet"},
	{name: "7.1(7) client_id of another client", corrupt: func(f *fixture, c *call) { c.form.Set("client_id", dpopID) },
		status: badRequest, code: attestation, rule: "7.1(7)", reason: "client_id"},
}
