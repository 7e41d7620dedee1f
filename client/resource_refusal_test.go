// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// shapes are ways to write an error code into WWW-Authenticate (RFC 9110,
// section 11.6.1).
var shapes = map[string]func(code string) []string{
	"DPoP, quoted":              func(c string) []string { return []string{`DPoP error="` + c + `"`} },
	"Bearer, quoted":            func(c string) []string { return []string{`Bearer realm="r", error="` + c + `", error_description="x"`} },
	"own scheme":                func(c string) []string { return []string{`OAuth-Client-Attestation error="` + c + `"`} },
	"token":                     func(c string) []string { return []string{`DPoP error=` + c} },
	"lower case scheme":         func(c string) []string { return []string{`dpop error="` + c + `"`} },
	"upper case name":           func(c string) []string { return []string{`DPOP ERROR="` + c + `"`} },
	"escaped":                   func(c string) []string { return []string{`DPoP error="\` + c + `"`} },
	"space around =":            func(c string) []string { return []string{"DPoP error\t= \"" + c + "\""} },
	"second parameter":          func(c string) []string { return []string{`DPoP algs="ES256 ES384",error="` + c + `"`} },
	"after a list":              func(c string) []string { return []string{`,, DPoP realm="a, b=\"c\"",, error="` + c + `",`} },
	"second scheme":             func(c string) []string { return []string{`Bearer realm="r", DPoP error="` + c + `"`} },
	"first scheme":              func(c string) []string { return []string{`DPoP error="` + c + `", Bearer realm="r"`} },
	"between others":            func(c string) []string { return []string{`Negotiate, DPoP error="` + c + `", Basic realm="r"`} },
	"after a token68":           func(c string) []string { return []string{`Negotiate YWI==, DPoP error="` + c + `"`} },
	"second field":              func(c string) []string { return []string{`Bearer realm="r"`, `DPoP error="` + c + `"`} },
	"first field":               func(c string) []string { return []string{`DPoP error="` + c + `"`, `Bearer`} },
	"beside another error":      func(c string) []string { return []string{`Bearer error="invalid_token", DPoP error="` + c + `"`} },
	"beside another, field":     func(c string) []string { return []string{`Bearer error="invalid_token"`, `DPoP error="` + c + `"`} },
	"after what is not grammar": func(c string) []string { return []string{`@@@ "x"`, `DPoP error="` + c + `"`} },
}

func TestResourceRefusalShapes(t *testing.T) {
	for name, shape := range shapes {
		for _, scheme := range []string{"Bearer", "DPoP"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
				rs := r.resources[0]
				rs.challenge, rs.nonce, rs.wrap = "first", "first", shape
				c := r.client(func(cfg *client.Config) { cfg.DPoP = client.DPoPInstanceKey })

				// No challenge and no nonce known: one more send for each.
				sends := map[string]int{"Bearer": 2, "DPoP": 3}[scheme]
				if resp := r.call(c, rs.identifier, scheme, http.StatusOK); transport.Sends(resp) != sends {
					t.Errorf("%d sends, want %d", transport.Sends(resp), sends)
				}
				r.call(c, rs.identifier, scheme, http.StatusOK)
				rs.counts(sends+1, 1, 0)

				rs.set(func(s *resourceServer) {
					s.challenge, s.nonce, s.fresh = "second", "second", s.requests[0].Attestation
				})
				// And one for the attestation.
				if resp := r.call(c, rs.identifier, scheme, http.StatusOK); transport.Sends(resp) != sends+1 {
					t.Errorf("%d sends, want %d", transport.Sends(resp), sends+1)
				}
				rs.counts(2*sends+2, 1, 0)
				if n := len(r.attester.calls()); n != 2 {
					t.Errorf("the attester was asked %d times, want 2", n)
				}
				if n := r.total(); n != 0 {
					t.Errorf("%d requests to the authorization server", n)
				}
			})
		}
	}
}

// TestResourceRefusalForNobody: what only looks like a code in one, or is none of
// the three, is not answered with another send.
func TestResourceRefusalForNobody(t *testing.T) {
	for name, fields := range map[string][]string{
		"none":               nil,
		"other code":         {`DPoP error="invalid_token"`},
		"in a quoted value":  {`Bearer error_description="a, DPoP error=\"use_attestation_challenge\""`},
		"in capitals":        {`DPoP error="USE_ATTESTATION_CHALLENGE"`},
		"other name":         {`DPoP error_code="use_attestation_challenge"`},
		"no closing quote":   {`DPoP error="use_attestation_challenge`},
		"without a scheme":   {`error="use_attestation_challenge"`},
		"the first counts":   {`DPoP error="invalid_token", error="use_attestation_challenge"`},
		"the scheme's name":  {`use_attestation_challenge`},
		"with a space in it": {`DPoP error="use_attestation_challenge "`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			rs := r.resources[0]
			rs.challenge, rs.wrap = "first", func(string) []string { return fields }
			r.call(r.client(), rs.identifier, "Bearer", http.StatusUnauthorized)
			rs.counts(1, 1, 0)
		})
	}
}

// TestResourceTwoErrors: a resource that takes Bearer and DPoP tokens answers
// for both schemes; only one of them concerns a request.
func TestResourceTwoErrors(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
	rs := r.resources[0]
	rs.challenge = "first"
	rs.wrap = func(code string) []string {
		return []string{`DPoP error="use_dpop_nonce", Bearer error="` + code + `"`}
	}
	r.call(r.client(), rs.identifier, "Bearer", http.StatusOK)
	rs.counts(2, 1, 0)
}

// TestResourceNeverSatisfied: each cause is answered once.
func TestResourceNeverSatisfied(t *testing.T) {
	r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
	rs := r.resources[0]
	c := r.client(func(cfg *client.Config) {
		base := cfg.Base
		cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			rs.set(func(s *resourceServer) {
				n := len(s.requests)
				s.challenge, s.nonce, s.fresh = fmt.Sprint("c", n), fmt.Sprint("n", n), req.Header.Get(transport.HeaderAttestation)
			})
			return base.RoundTrip(req)
		})
	})
	resp := r.call(c, rs.identifier, "DPoP", http.StatusUnauthorized)
	if n := transport.Sends(resp); n != 2 {
		t.Errorf("%d sends, want 2: every attestation is refused", n)
	}
	rs.counts(2, 1, 0)
}

// TestResourceChallengeEndpointC27: it is asked once, for both challenge and
// nonce, and nothing is refused.
func TestResourceChallengeEndpointC27(t *testing.T) {
	for name, test := range map[string]struct{ nonce, scheme string }{
		"challenge":           {"", "Bearer"},
		"challenge and nonce": {"n", "DPoP"},
		"challenge, no nonce": {"", "DPoP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, "https://rs.example.com/api")
			rs := r.resources[0]
			rs.challenge, rs.nonce = "c", test.nonce
			rs.describe(map[string]any{"challenge_endpoint": rs.challengeEndpoint()})
			c := r.client(func(cfg *client.Config) { cfg.DPoP = client.DPoPOwnKey })
			for range 2 {
				r.call(c, rs.identifier, test.scheme, http.StatusOK)
			}
			rs.counts(2, 1, 1)
		})
	}
}

// TestResourceMetadataInChallengeC49: a refusal may say where metadata is.
func TestResourceMetadataInChallengeC49(t *testing.T) {
	const identifier = "https://rs.example.com/api"
	for name, test := range map[string]struct {
		place string
		asked int // requests for metadata, in all
		used  bool
	}{
		"on its origin":      {"https://rs.example.com/meta/data", 2, true},
		"with a query":       {"https://rs.example.com/meta?a=b,c", 2, true},
		"another origin":     {"https://other.example.com/meta", 1, false},
		"another port":       {"https://rs.example.com:8443/meta", 1, false},
		"http":               {"http://rs.example.com/meta", 1, false},
		"no URL":             {"meta", 1, false},
		"the usual place":    {wellKnownOf(identifier), 1, false},
		"a user in it":       {"https://rs.example.com@other.example.com/meta", 1, false},
		"a host's name more": {"https://rs.example.com.other.example.com/meta", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResourceRig(t, transporttest.Policy{}, identifier)
			rs := r.resources[0]
			rs.challenge, rs.silent = "c", true
			rs.place, _, _ = strings.Cut(test.place, "?")
			if rs.place == wellKnownOf(identifier) {
				rs.place = "https://rs.example.com/nowhere"
			}
			rs.describe(map[string]any{"challenge_endpoint": rs.challengeEndpoint()})
			rs.wrap = func(string) []string {
				return []string{`Bearer realm="x"`, `DPoP resource_metadata="` + test.place + `"`} // and no error code
			}
			c := r.client()
			r.call(c, identifier, "Bearer", http.StatusUnauthorized)
			if test.used {
				r.call(c, identifier, "Bearer", http.StatusOK)
				r.call(c, identifier, "Bearer", http.StatusOK)
				rs.counts(3, test.asked, 1)
				return
			}
			r.call(c, identifier, "Bearer", http.StatusUnauthorized)
			rs.counts(2, test.asked, 0)
		})
	}
	t.Run("for another resource", func(t *testing.T) {
		r := newResourceRig(t, transporttest.Policy{}, identifier)
		rs := r.resources[0]
		rs.challenge, rs.silent, rs.place = "c", true, "https://rs.example.com/meta"
		rs.describe(map[string]any{"resource": "https://rs.example.com", "challenge_endpoint": rs.challengeEndpoint()})
		rs.wrap = func(string) []string { return []string{`DPoP resource_metadata="https://rs.example.com/meta"`} }
		c := r.client()
		for range 2 {
			r.call(c, identifier, "Bearer", http.StatusUnauthorized)
		}
		rs.counts(2, 3, 0)
	})
}
