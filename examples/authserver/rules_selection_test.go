// SPDX-License-Identifier: Apache-2.0

package authserver_test

import ()

// selectionCases: section 7, which rules apply.
var selectionCases = []ruleCase{
	{name: "S1 bad PoP beside a DPoP proof by the instance key: no fallback to combined", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.instance).pop.key = f.dpop
	}, status: badRequest, code: attestation, rule: "7.2(4)", reason: "signature"},
	{name: "S1 DPoP proof beside the PoP is checked too", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.dpop).dpop.claims["htm"] = "GET"
	}, status: badRequest, code: "invalid_dpop_proof", rule: "RFC 9449 4.3(8)", reason: "htm"},
	{name: "S2 combined mode with a client registered for PoP", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.instance).pop = nil
	}, status: badClient, code: "invalid_client", rule: "7", reason: "registered for attest_jwt_client_auth,"},
	{name: "S3 combined mode not supported", configure: onlyPoP, corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.instance).pop = nil
	}, status: badRequest, code: attestation, rule: "7", reason: "not supported"},
	{name: "7 DPoP proof alone", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.instance)
		c.attestation, c.pop = nil, nil
	}, status: badClient, code: "invalid_client", rule: "7.1(1)", reason: "no OAuth-Client-Attestation header"},
	{name: "7 beside Basic", corrupt: func(f *fixture, c *call) { c.headers.Set("Authorization", "Basic YTpi") },
		status: badRequest, code: "invalid_request", rule: "RFC 6749 2.3", reason: "Authorization"},
	{name: "7 beside a client_secret", corrupt: func(f *fixture, c *call) { c.form.Set("client_secret", "s3cret") },
		status: badRequest, code: "invalid_request", rule: "RFC 6749 2.3", reason: "client_secret"},
	{name: "7 beside a client_assertion", corrupt: func(f *fixture, c *call) { c.form.Set("client_assertion", "x") },
		status: badRequest, code: "invalid_request", rule: "RFC 6749 2.3", reason: "client_assertion"},
	{name: "7.5 unknown client", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["sub"] = "stranger"
		c.form.Del("client_id")
	}, status: badClient, code: "invalid_client", rule: "RFC 6749 5.2", reason: "not registered"},
}
