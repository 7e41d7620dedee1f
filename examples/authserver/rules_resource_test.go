// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

// A resourceCase breaks one rule in a request for the resource that is otherwise
// right.
type resourceCase struct {
	name      string
	configure func(*authserver.Config)
	kind      string // "": bearer token and PoP JWT; "dpop": with a DPoP proof beside; "combined"
	corrupt   func(*fixture, *call)
	status    int // 0: 401
	code      string
	schemes   string // "": Bearer
	rule      string
	reason    string
}

func resource(change func(*authserver.ResourceConfig)) func(*authserver.Config) {
	return func(cfg *authserver.Config) { change(cfg.Resource) }
}

func resourceNonces(r *authserver.ResourceConfig) { r.DPoPNonces = true }

func nothing(*fixture, *call) {}

func authorization(value string) func(*fixture, *call) {
	return func(f *fixture, c *call) { c.headers.Set("Authorization", value) }
}

const (
	both     = "Bearer DPoP"
	badToken = "invalid_token"
	badProof = "invalid_dpop_proof"
	useNew   = "use_attestation_challenge"
	proof449 = "RFC 9449 4.3("
)

var resourceCases = []resourceCase{
	{name: "6750 no token", corrupt: func(f *fixture, c *call) { c.headers.Del("Authorization") },
		schemes: both, rule: "RFC 6750 3.1", reason: "no access token"},
	{name: "6750 another scheme", corrupt: authorization("Basic YTpi"), schemes: both, rule: "RFC 6750 3.1", reason: "another scheme"},
	{name: "6750 two tokens", corrupt: func(f *fixture, c *call) { c.headers.Add("Authorization", "Bearer x") },
		status: badRequest, code: "invalid_request", rule: "RFC 6750 3.1", reason: "2 Authorization"},
	{name: "9068 no JWT", corrupt: authorization("Bearer x"), code: badToken, rule: "RFC 9068 4", reason: "malformed"},
	{name: "9068 an attestation as token", corrupt: func(f *fixture, c *call) {
		c.headers.Set("Authorization", "Bearer "+c.attestation.compact(f.t))
	}, code: badToken, rule: "RFC 9068 4", reason: "typ"},
	{name: "9068 another's signature", corrupt: func(f *fixture, c *call) {
		forged := &token{header: object{"typ": "at+jwt", "alg": "ES256"}, key: f.instance, claims: object{
			"iss": issuer, "aud": resourceID, "exp": f.now.Add(time.Hour).Unix(), "client_id": clientID,
		}}
		c.headers.Set("Authorization", "Bearer "+forged.compact(f.t))
	}, code: badToken, rule: "RFC 9068 4", reason: "signature"},
	{name: "9068 a token for the authorization server", corrupt: func(f *fixture, c *call) {
		c.headers.Set("Authorization", "Bearer "+f.grant(f.pop())["access_token"].(string))
	}, code: badToken, rule: "RFC 9068 4", reason: `is for "` + issuer + `"`},
	{name: "9068 expired", corrupt: func(f *fixture, c *call) { f.now = f.now.Add(5 * time.Minute) },
		code: badToken, rule: "RFC 9068 4", reason: "expired"},
	{name: "9068 another instance's token", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["cnf"] = object{"jwk": publicJWK(f.t, f.dpop)}
		c.pop.key = f.dpop
	}, code: badToken, rule: "resource", reason: "another Client Instance"},

	{name: "9449 bound token as a bearer token", kind: "dpop", corrupt: func(f *fixture, c *call) {
		c.headers.Set("Authorization", "Bearer"+c.headers.Get("Authorization")[len("DPoP"):])
	}, code: badToken, rule: "RFC 9449 7.2", reason: "as a bearer token"},
	{name: "9449 bearer token as a bound one", corrupt: func(f *fixture, c *call) {
		c.headers.Set("Authorization", "DPoP"+c.headers.Get("Authorization")[len("Bearer"):])
	}, code: badToken, schemes: "DPoP", rule: "RFC 9449 7.1", reason: "as a DPoP-bound one"},
	{name: "9449 no proof", kind: "dpop", corrupt: func(f *fixture, c *call) { c.dpop = nil },
		code: badToken, schemes: "DPoP", rule: "RFC 9449 7.1", reason: "there is no proof"},
	{name: "9449 proof by another key", kind: "dpop", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.instance)
		f.aim(c)
	}, code: badToken, schemes: "DPoP", rule: "RFC 9449 7.1", reason: "another DPoP key"},
	{name: "9449 no ath", kind: "dpop", corrupt: func(f *fixture, c *call) { delete(c.dpop.claims, "ath") },
		code: badProof, schemes: "DPoP", rule: proof449 + "12)", reason: "ath"},
	{name: "9449 ath of another token", kind: "combined", corrupt: func(f *fixture, c *call) { c.dpop.claims["ath"] = "x" },
		code: badProof, schemes: "DPoP", rule: proof449 + "12)", reason: "ath"},
	{name: "9449 htm of another method", kind: "dpop", corrupt: func(f *fixture, c *call) { c.dpop.claims["htm"] = "POST" },
		code: badProof, schemes: "DPoP", rule: proof449 + "8)", reason: "htm"},
	{name: "9449 htu of the resource below which it is", kind: "dpop", corrupt: func(f *fixture, c *call) { c.url += "/below" },
		code: badProof, schemes: "DPoP", rule: proof449 + "9)", reason: "htu"},
	{name: "9449 bad proof beside a bearer token", corrupt: func(f *fixture, c *call) { f.withDPoP(c, f.dpop) },
		code: badProof, schemes: "DPoP", rule: proof449 + "8)", reason: "htm"},
	{name: "9449 replay", kind: "combined", corrupt: func(f *fixture, c *call) { f.wantServed(f.send(c), dpopID) },
		code: badProof, schemes: "DPoP", rule: "RFC 9449 11.1", reason: "already used"},
	{name: "9449 no nonce", kind: "dpop", configure: resource(resourceNonces), corrupt: nothing,
		code: "use_dpop_nonce", schemes: "DPoP", rule: proof449 + "10)", reason: "nonce"},
	{name: "9449 no nonce in combined mode", kind: "combined", configure: resource(resourceNonces), corrupt: nothing,
		code: "use_dpop_nonce", schemes: "DPoP", rule: proof449 + "10)", reason: "nonce"},
	{name: "9728 bearer token where bound ones are required",
		configure: resource(func(r *authserver.ResourceConfig) { r.DPoPRequired = true }), corrupt: nothing,
		code: badToken, schemes: "DPoP", rule: "RFC 9728 2", reason: "only DPoP-bound"},

	{name: "7.1(1) no attestation", corrupt: func(f *fixture, c *call) { c.attestation = nil },
		code: attestation, rule: "7.1(1)", reason: "no OAuth-Client-Attestation"},
	{name: "7.1(1) two", corrupt: func(f *fixture, c *call) { c.headers.Set("OAuth-Client-Attestation", c.attestation.compact(f.t)) },
		status: badRequest, code: "invalid_request", rule: "7.1(1)", reason: "2 OAuth-Client-Attestation"},
	{name: "7.1(4) another attester", corrupt: func(f *fixture, c *call) { c.attestation.key = f.dpop },
		code: attestation, rule: "7.1(4)", reason: "signature"},
	{name: "7.1(6) expired", corrupt: func(f *fixture, c *call) { c.attestation.claims["exp"] = f.now.Add(-time.Minute).Unix() },
		code: "use_fresh_attestation", rule: "7.1(6)", reason: "expired"},
	{name: "7.1(6) expired, with a bound token", kind: "dpop", corrupt: func(f *fixture, c *call) {
		c.attestation.claims["exp"] = f.now.Add(-time.Minute).Unix()
	}, code: "use_fresh_attestation", schemes: "DPoP", rule: "7.1(6)", reason: "expired"},
	{name: "7.1(7) attestation of another client", corrupt: func(f *fixture, c *call) { c.attestation.claims["sub"] = dpopID },
		code: attestation, rule: "7.1(7)", reason: "is not the attestation's sub"},
	{name: "7.2(1) no PoP", corrupt: func(f *fixture, c *call) { c.pop = nil }, code: attestation, rule: "7.2(1)", reason: "without a proof"},
	{name: "7.2(4) PoP by another key", corrupt: func(f *fixture, c *call) { c.pop.key = f.dpop },
		code: attestation, rule: "7.2(4)", reason: "signature"},
	{name: "7.2(5) no challenge", corrupt: drop("challenge"), code: useNew, rule: "7.2(5)", reason: "no challenge"},
	{name: "7.2(5) no challenge, with a bound token", kind: "dpop", corrupt: drop("challenge"),
		code: useNew, schemes: "DPoP", rule: "7.2(5)", reason: "no challenge"},
	{name: "7.2(5) challenge of the authorization server", corrupt: func(f *fixture, c *call) {
		c.pop.claims["challenge"] = f.fetchChallenge()
	}, code: useNew, rule: "7.2(5)", reason: "not a challenge of this server"},
	{name: "7.2(7) aud is the issuer", corrupt: audience(issuer), code: attestation, rule: "7.2(7)", reason: "identifier " + resourceID},
	{name: "7.2(7) aud is the URL below", corrupt: func(f *fixture, c *call) {
		c.url += "/below"
		c.pop.claims["aud"] = c.url
	}, code: attestation, rule: "7.2(7)", reason: "identifier " + resourceID},
	{name: "7.2(8) replay", corrupt: func(f *fixture, c *call) { f.wantServed(f.send(c), clientID) },
		code: attestation, rule: "7.2(8)", reason: "already used"},
	{name: "7.3(4) combined, with another key", kind: "combined", corrupt: func(f *fixture, c *call) {
		f.withDPoP(c, f.dpop)
		f.aim(c)
	}, code: attestation, schemes: "DPoP", rule: "7.3(4)", reason: "not the Client Instance Key"},
	{name: "S3 combined mode not taken", kind: "combined", configure: resource(func(r *authserver.ResourceConfig) {
		r.Methods = []string{authserver.MethodPoP}
	}), corrupt: nothing, code: attestation, schemes: "DPoP", rule: "7", reason: "dpop_combined is not taken"},
	{name: "S3 PoP JWT not taken", configure: resource(func(r *authserver.ResourceConfig) {
		r.Methods = []string{authserver.MethodDPoP}
	}), corrupt: nothing, code: attestation, rule: "7", reason: "attestation_pop_jwt is not taken"},
	{name: "req_hash of another body", corrupt: func(f *fixture, c *call) {
		c.pop.claims["req_hash"] = halfHash([]byte("on=0"))
		c.method, c.body = http.MethodPost, "on=1"
	}, code: attestation, rule: "req_hash", reason: "changed on the way"},
	{name: "policy holds here too", configure: func(cfg *authserver.Config) {
		cfg.Policy, _ = authserver.ParsePolicy([]byte(`{"require_oemboot": true}`))
	}, corrupt: func(f *fixture, c *call) { delete(c.attestation.claims, "oemboot") },
		code: attestation, rule: "policy", reason: "oemboot"},
}

func TestResourceRules(t *testing.T) {
	refused := 0
	for _, tc := range resourceCases {
		t.Run(tc.name, func(t *testing.T) {
			f := newResourceFixture(t, tc.configure)
			prepare := func() *call { return f.atResource(f.tokenCall(tc.kind)) }
			c := prepare()
			tc.corrupt(f, c)
			w := f.send(c)
			status, schemes := tc.status, tc.schemes
			if status == 0 {
				status = badClient
			}
			if schemes == "" {
				schemes = "Bearer"
			}
			f.wantUnauthorized(w, status, tc.code, schemes, tc.rule, tc.reason)
			// S6: these errors always carry what they ask for, and a good one.
			retry := prepare()
			switch tc.code {
			case useNew:
				retry.pop.claims["challenge"] = w.Header().Get(challengeHeader)
				f.wantServed(f.send(retry), clientID)
			case "use_dpop_nonce":
				retry.dpop.claims["nonce"] = w.Header().Get(nonceHeader)
				f.wantServed(f.send(retry), retry.attestation.claims["sub"].(string))
			}
			if !t.Failed() {
				refused++
			}
		})
	}
	const want = 41
	if len(resourceCases) != want || refused != want {
		t.Errorf("%d cases, %d refused for the right reason, want %d", len(resourceCases), refused, want)
	}
}
