// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/internal/authchallenge"
)

const resourceID = issuer + "/resource"

// newResourceFixture makes a server with a resource on its own origin, changed
// by configure.
func newResourceFixture(t testing.TB, configure func(*authserver.Config)) *fixture {
	t.Helper()
	return newFixture(t, func(cfg *authserver.Config) {
		cfg.Resource = &authserver.ResourceConfig{
			Identifier: resourceID, Challenges: &authserver.ChallengeConfig{Endpoint: true},
		}
		if configure != nil {
			configure(cfg)
		}
	})
}

// tokenCall is a token request of that kind: "" with a PoP JWT, "dpop" with a
// DPoP proof beside it, "combined".
func (f *fixture) tokenCall(kind string) *call {
	c := f.pop()
	switch kind {
	case "dpop":
		f.withDPoP(c, f.dpop)
	case "combined":
		c = f.combined()
	}
	c.attestation.claims["oemboot"] = true
	return c
}

// atResource gets an access token for the resource by a token request, and
// returns a request with it, of the same instance and with the same proofs,
// that is right in every respect.
func (f *fixture) atResource(tokenRequest *call) *call {
	f.t.Helper()
	tokenRequest.form.Set("resource", resourceID)
	return f.withToken(tokenRequest, f.grant(tokenRequest))
}

func (f *fixture) grant(c *call) object {
	f.t.Helper()
	tokenType := "Bearer"
	if c.dpop != nil {
		tokenType = "DPoP"
	}
	return f.wantToken(f.send(c), tokenType)
}

func (f *fixture) withToken(tokenRequest *call, answer object) *call {
	f.t.Helper()
	c := f.pop()
	c.method, c.url, c.form, c.contentType = http.MethodGet, resourceID, nil, ""
	c.attestation = tokenRequest.attestation
	c.headers.Set("Authorization", answer["token_type"].(string)+" "+answer["access_token"].(string))
	c.pop.claims["aud"] = resourceID
	if challenge := f.challengeOf(resourceID); challenge != "" {
		c.pop.claims["challenge"] = challenge
	}
	if tokenRequest.dpop != nil {
		f.withDPoP(c, tokenRequest.dpop.key)
		f.aim(c)
	}
	if tokenRequest.pop == nil {
		c.pop = nil
	}
	return c
}

// aim makes the DPoP proof one for this request and its access token.
func (f *fixture) aim(c *call) {
	_, token, _ := strings.Cut(c.headers.Get("Authorization"), " ")
	ath := sha256.Sum256([]byte(token))
	c.dpop.claims["htm"], c.dpop.claims["htu"] = c.method, c.url
	c.dpop.claims["ath"] = base64.RawURLEncoding.EncodeToString(ath[:])
}

// wantServed checks that the resource has served this client.
func (f *fixture) wantServed(w *httptest.ResponseRecorder, client string) {
	f.t.Helper()
	if w.Code != http.StatusOK {
		f.t.Fatalf("status %d, WWW-Authenticate %q, logged %v", w.Code, w.Header().Values("WWW-Authenticate"), f.lastRecord())
	}
	if got := body(f.t, w); got["client_id"] != client || got["instance_key"] != thumbprint(f.t, f.instance) {
		f.t.Errorf("served as %v, want %s", got, client)
	}
}

// wantUnauthorized checks a refusal of the resource, under each of the schemes,
// and what was logged about it.
func (f *fixture) wantUnauthorized(w *httptest.ResponseRecorder, status int, code, schemes, rule, reason string) {
	f.t.Helper()
	if w.Code != status || w.Body.Len() != 0 {
		f.t.Errorf("status %d and a body of %d bytes, want %d and none", w.Code, w.Body.Len(), status)
	}
	var got []string
	for _, challenge := range authchallenge.Parse(w.Header()) {
		got = append(got, challenge.Scheme)
		_, hasError := challenge.Params["error"]
		if challenge.Params["error"] != code || hasError != (code != "") {
			f.t.Errorf("%s challenge has error %q, want %q", challenge.Scheme, challenge.Params["error"], code)
		}
		if _, hasAlgorithms := challenge.Params["algs"]; hasAlgorithms != (challenge.Scheme == "DPoP") {
			f.t.Errorf("%s challenge has algs %q", challenge.Scheme, challenge.Params["algs"])
		}
		if place := issuer + "/.well-known/oauth-protected-resource/resource"; challenge.Params["resource_metadata"] != place {
			f.t.Errorf("resource_metadata %q, want %s", challenge.Params["resource_metadata"], place)
		}
	}
	if strings.Join(got, " ") != schemes {
		f.t.Errorf("schemes %q, want %q", got, schemes)
	}
	record := f.lastRecord()
	if record["rule"] != rule || record["error"] != code {
		f.t.Errorf("logged %v, want rule %s", record, rule)
	}
	if got, _ := record["reason"].(string); !strings.Contains(got, reason) {
		f.t.Errorf("logged reason %q, want one with %q", got, reason)
	}
	f.wantNoJWT()
}
