// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"strings"
	"time"
)

// combinedCases: section 7.3.
var combinedCases = []ruleCase{
	{name: "7.3(1) PoP by a client registered for combined mode", combined: true, corrupt: func(f *fixture, c *call) {
		c.pop, c.dpop = f.pop().pop, nil
	}, status: badClient, code: "invalid_client", rule: "7.3(1)", reason: "registered for attest_jwt_client_auth_dpop"},
	{name: "7.3(2) two proofs", combined: true, corrupt: func(f *fixture, c *call) { c.headers.Set("DPoP", c.dpop.compact(f.t)) },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(1)", reason: "2 DPoP"},
	{name: "7.3(3) no JWT", combined: true, corrupt: raw("DPoP", "x"),
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(2)", reason: "malformed"},
	{name: "7.3(3) no jwk", combined: true, corrupt: func(f *fixture, c *call) { delete(c.dpop.header, "jwk") },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(3)", reason: "no jwk"},
	{name: "7.3(3) no jti", combined: true, corrupt: func(f *fixture, c *call) { delete(c.dpop.claims, "jti") },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(3)", reason: "missing"},
	{name: "7.3(3) typ of the PoP", combined: true, corrupt: func(f *fixture, c *call) {
		c.dpop.header["typ"] = "oauth-client-attestation-pop+jwt"
	}, status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(4)", reason: "typ"},
	{name: "7.3(3) a MAC", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.header["alg"] = "HS256" },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(5)", reason: "HS256"},
	{name: "7.3(3) signed with another key", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.key = f.dpop },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(6)", reason: "signature"},
	{name: "7.3(3) private jwk", combined: true, corrupt: func(f *fixture, c *call) {
		c.dpop.header["jwk"].(object)["d"] = strings.Repeat("A", 42) + "E"
	}, status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(2)", reason: "private"},
	{name: "7.3(3) other htm", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.claims["htm"] = "post" },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(8)", reason: "htm"},
	{name: "7.3(3) other htu", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.claims["htu"] = issuer + "/tokens" },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(9)", reason: "htu"},
	{name: "7.3(3) too old", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.claims["iat"] = f.now.Add(-time.Minute).Unix() },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(11)", reason: "in the past"},
	{name: "7.3(3) after its own exp", combined: true, corrupt: func(f *fixture, c *call) { c.dpop.claims["exp"] = f.now.Add(-time.Minute).Unix() },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(11)", reason: "its exp"},
	{name: "7.3(3) replay", combined: true, corrupt: func(f *fixture, c *call) { f.wantToken(f.send(c), "DPoP") },
		status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 11.1", reason: "already used"},
	{name: "7.3(3) no nonce", combined: true, configure: nonces, corrupt: func(f *fixture, c *call) {},
		status: badRequest, code: "use_dpop_nonce", rule: "RFC 9449 4.3(10)", reason: "nonce"},
	{name: "7.3(3) an attestation challenge as nonce", combined: true, configure: nonces, corrupt: func(f *fixture, c *call) {
		c.dpop.claims["nonce"] = f.fetchChallenge()
	}, status: badRequest, code: "use_dpop_nonce", rule: "RFC 9449 4.3(10)", reason: "nonce"},
	{name: "7.3(4) key is not the instance key", combined: true, corrupt: func(f *fixture, c *call) { f.withDPoP(c, f.dpop) },
		status: badRequest, code: attestation, rule: "7.3(4)", reason: "not the Client Instance Key"},
	{name: "7.1 holds in combined mode", combined: true, corrupt: func(f *fixture, c *call) { c.attestation.key = f.instance },
		status: badRequest, code: attestation, rule: "7.1(4)", reason: "signature"},
}
