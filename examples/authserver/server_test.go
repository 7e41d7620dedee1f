// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/elliptic"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/authserver"
)

// TestAccepted has what the rules leave open: each of these gets its token.
func TestAccepted(t *testing.T) {
	cases := []struct {
		name      string
		configure func(*authserver.Config)
		combined  bool
		change    func(*fixture, *call)
		tokenType string
	}{
		{name: "S1 PoP JWT", tokenType: "Bearer"},
		{name: "S1 with a DPoP proof of another key", change: func(f *fixture, c *call) { f.withDPoP(c, f.dpop) }, tokenType: "DPoP"},
		{name: "S1 with a DPoP proof of the instance key", change: func(f *fixture, c *call) { f.withDPoP(c, f.instance) }, tokenType: "DPoP"},
		{name: "S2 combined mode", combined: true, tokenType: "DPoP"},
		{name: "S5 no challenges, none sent", configure: noChallenges, tokenType: "Bearer"},
		{name: "S5 no challenges, one sent", configure: noChallenges, change: func(f *fixture, c *call) {
			c.pop.claims["challenge"] = "whatever"
		}, tokenType: "Bearer"},
		{name: "7.1(2) unknown claims", change: func(f *fixture, c *call) {
			c.attestation.claims["iss"], c.attestation.claims["hwmodel"] = "x", object{"a": 1}
		}, tokenType: "Bearer"},
		{name: "7.1(2) cnf.jwk with use, kid and alg", change: func(f *fixture, c *call) {
			jwk := c.attestation.claims["cnf"].(object)["jwk"].(object)
			jwk["use"], jwk["kid"], jwk["alg"] = "sig", "k", "ES256"
		}, tokenType: "Bearer"},
		{name: "7.1(6) expired within the skew", change: func(f *fixture, c *call) {
			c.attestation.claims["exp"] = f.now.Add(-9 * time.Second).Unix()
		}, tokenType: "Bearer"},
		{name: "7.1(6) as old as allowed", configure: maxAge, change: func(f *fixture, c *call) {
			c.attestation.claims["iat"] = f.now.Add(-10 * time.Minute).Unix()
		}, tokenType: "Bearer"},
		{name: "7.1(7) no client_id", change: func(f *fixture, c *call) { c.form.Del("client_id") }, tokenType: "Bearer"},
		{name: "7.2(2) iss, exp, nbf and nonce of older drafts", change: func(f *fixture, c *call) {
			c.pop.claims["iss"], c.pop.claims["nonce"] = clientID, "x"
			c.pop.claims["exp"], c.pop.claims["nbf"] = f.now.Add(time.Minute).Unix(), f.now.Unix()
		}, tokenType: "Bearer"},
		{name: "7.2(3) P-384 instance key", change: func(f *fixture, c *call) {
			c.pop.key = newKey(f.t, elliptic.P384())
			c.pop.header["alg"] = "ES384"
			c.attestation.claims["cnf"] = object{"jwk": publicJWK(f.t, c.pop.key)}
		}, tokenType: "Bearer"},
		{name: "7.2(6) 59 seconds old", change: func(f *fixture, c *call) {
			c.pop.claims["iat"] = f.now.Add(-59 * time.Second).Unix()
		}, tokenType: "Bearer"},
		{name: "7.2(6) 10 seconds ahead", change: func(f *fixture, c *call) {
			c.pop.claims["iat"] = f.now.Add(10 * time.Second).Unix()
		}, tokenType: "Bearer"},
		{name: "7.2(7) array of one", change: func(f *fixture, c *call) { c.pop.claims["aud"] = []string{issuer} }, tokenType: "Bearer"},
		{name: "7.3(3) htu in other letters, with default port, query and fragment", combined: true, change: func(f *fixture, c *call) {
			c.dpop.claims["htu"] = "HTTPS://AS.example.com:443/token?x=1#y"
		}, tokenType: "DPoP"},
		{name: "7.3(4) cnf.jwk written otherwise", combined: true, change: func(f *fixture, c *call) {
			c.attestation.claims["cnf"].(object)["jwk"].(object)["use"] = "sig"
		}, tokenType: "DPoP"},
		{name: "6749 empty parameters count as left out", change: func(f *fixture, c *call) { c.form.Set("client_secret", "") }, tokenType: "Bearer"},
	}
	granted := 0
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, tc.configure)
			c := f.pop()
			if tc.combined {
				c = f.combined()
			}
			if tc.change != nil {
				tc.change(f, c)
			}
			answer := f.wantToken(f.send(c), tc.tokenType)
			f.checkAccessToken(answer, c)
			granted++
		})
	}
	if granted != 19 {
		t.Errorf("%d tokens granted, want 19", granted)
	}
}

func noChallenges(cfg *authserver.Config) { cfg.Challenges = nil }

// checkAccessToken verifies an access token with the key that the server
// publishes, and that it is bound to the DPoP key if and only if there was one.
func (f *fixture) checkAccessToken(answer object, c *call) {
	f.t.Helper()
	var keys jose.JSONWebKeySet
	w := f.do(httptest.NewRequest(http.MethodGet, issuer+"/jwks", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() {
		f.t.Fatalf("JWK Set %s: %v", w.Body, err)
	}
	parsed, err := jwt.ParseSigned(answer["access_token"].(string), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		f.t.Fatal(err)
	}
	var claims struct {
		jwt.Claims
		Cnf      map[string]string `json:"cnf"`
		ClientID string            `json:"client_id"`
	}
	if err := parsed.Claims(keys.Keys[0], &claims); err != nil {
		f.t.Fatal(err)
	}
	if claims.Issuer != issuer || claims.ClientID != claims.Subject || !claims.Expiry.Time().Equal(f.now.Add(5*time.Minute)) {
		f.t.Errorf("access token claims %+v", claims)
	}
	var want map[string]string
	if c.dpop != nil {
		want = map[string]string{"jkt": thumbprint(f.t, c.dpop.key)}
	}
	if !reflect.DeepEqual(claims.Cnf, want) {
		f.t.Errorf("cnf %v, want %v", claims.Cnf, want)
	}
}

func TestMetadataS14(t *testing.T) {
	algorithms := []any{"ES256", "ES384", "ES512", "EdDSA"}
	f := newFixture(t, nil)
	w := f.do(httptest.NewRequest(http.MethodGet, issuer+"/.well-known/oauth-authorization-server", nil))
	want := object{
		"issuer":                                issuer,
		"token_endpoint":                        issuer + "/token",
		"jwks_uri":                              issuer + "/jwks",
		"challenge_endpoint":                    issuer + "/challenge",
		"grant_types_supported":                 []any{"client_credentials", "refresh_token"},
		"scopes_supported":                      []any{"read", "write"},
		"token_endpoint_auth_methods_supported": []any{"attest_jwt_client_auth", "attest_jwt_client_auth_dpop"},
		"client_attestation_signing_alg_values_supported":     algorithms,
		"client_attestation_pop_signing_alg_values_supported": algorithms,
		"dpop_signing_alg_values_supported":                   algorithms,
	}
	if got := body(t, w); w.Code != http.StatusOK || !reflect.DeepEqual(got, want) {
		t.Errorf("metadata %v, want %v", got, want)
	}

	// An issuer with a path: the well-known part goes between host and path.
	f = newFixture(t, func(cfg *authserver.Config) {
		cfg.Issuer = issuer + "/tenant"
		cfg.Clients = cfg.Clients[:1]
		cfg.Challenges, cfg.RefreshTokens = nil, false
	})
	w = f.do(httptest.NewRequest(http.MethodGet, issuer+"/.well-known/oauth-authorization-server/tenant", nil))
	got := body(t, w)
	wantMembers := object{
		"issuer":                                issuer + "/tenant",
		"token_endpoint":                        issuer + "/tenant/token",
		"challenge_endpoint":                    nil,
		"grant_types_supported":                 []any{"client_credentials"},
		"token_endpoint_auth_methods_supported": []any{"attest_jwt_client_auth"},
	}
	for member, want := range wantMembers {
		if !reflect.DeepEqual(got[member], want) {
			t.Errorf("%s: %v, want %v", member, got[member], want)
		}
	}
}

func TestRoutes(t *testing.T) {
	f := newFixture(t, nil)
	cases := []struct {
		method, path string
		want         int
	}{
		{"GET", "/token", 405}, {"GET", "/challenge", 405}, {"POST", "/jwks", 405},
		{"POST", "/.well-known/oauth-authorization-server", 405},
		{"HEAD", "/.well-known/oauth-authorization-server", 200},
		{"POST", "//token", 404}, {"POST", "/token/", 404}, {"POST", "/x/../token", 404}, {"GET", "/", 404},
	}
	for _, tc := range cases {
		r := httptest.NewRequest(tc.method, issuer+"/", nil)
		r.URL.Path = tc.path
		w := f.do(r)
		if w.Code != tc.want {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.path, w.Code, tc.want)
		}
		if allow := w.Header().Get("Allow"); (w.Code == 405) != (allow != "") {
			t.Errorf("%s %s: Allow %q", tc.method, tc.path, allow)
		}
	}
	if len(cases) != 9 {
		t.Errorf("%d cases, want 9", len(cases))
	}
}

func TestNewRefuses(t *testing.T) {
	attester := newKey(t, elliptic.P256())
	cases := map[string]struct {
		change func(*authserver.Config)
		want   string
	}{
		"no issuer":              {func(c *authserver.Config) { c.Issuer = "" }, "not an absolute https URL"},
		"http issuer":            {func(c *authserver.Config) { c.Issuer = "http://as.example.com" }, "use https"},
		"issuer with a query":    {func(c *authserver.Config) { c.Issuer = issuer + "?a" }, "query"},
		"issuer with a fragment": {func(c *authserver.Config) { c.Issuer = issuer + "#" }, "fragment"},
		"issuer with user info":  {func(c *authserver.Config) { c.Issuer = "https://u:pw@as.example.com" }, "user info"},
		"no clients":             {func(c *authserver.Config) { c.Clients = nil }, "no client"},
		"client without ID":      {func(c *authserver.Config) { c.Clients[0].ID = "" }, "without an ID"},
		"client twice":           {func(c *authserver.Config) { c.Clients = append(c.Clients, c.Clients[0]) }, "twice"},
		"unknown method":         {func(c *authserver.Config) { c.Clients[0].Method = "private_key_jwt" }, "unknown method"},
		"no attester":            {func(c *authserver.Config) { c.AttesterKeys.Keys = nil }, "no attester is trusted"},
		"private attester key":   {func(c *authserver.Config) { c.AttesterKeys.Keys[0].Key = attester }, "not a public key"},
		"symmetric attester key": {func(c *authserver.Config) { c.AttesterKeys.Keys[0].Key = []byte("secret") }, "not a public key"},
		"attester key no kid":    {func(c *authserver.Config) { c.AttesterKeys.Keys[0].KeyID = "" }, "without a kid"},
		"attester kid twice": {func(c *authserver.Config) {
			c.AttesterKeys.Keys = append(c.AttesterKeys.Keys, c.AttesterKeys.Keys[0])
		}, "two attester keys"},
		"attester key for encryption": {func(c *authserver.Config) { c.AttesterKeys.Keys[0].Use = "enc" }, "not for signatures"},
		"MAC algorithm":               {func(c *authserver.Config) { c.AttestationAlgorithms = []jose.SignatureAlgorithm{"HS256"} }, "not a digital signature"},
		"alg none":                    {func(c *authserver.Config) { c.ProofAlgorithms = []jose.SignatureAlgorithm{"none"} }, "not a digital signature"},
		"no algorithm":                {func(c *authserver.Config) { c.ProofAlgorithms = []jose.SignatureAlgorithm{} }, "no algorithm"},
		"negative window":             {func(c *authserver.Config) { c.ProofWindow = -1 }, "negative"},
	}
	for name, tc := range cases {
		cfg := authserver.Config{
			Issuer:       issuer,
			Clients:      []authserver.Client{{ID: clientID}},
			AttesterKeys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &attester.PublicKey, KeyID: "1"}}},
		}
		if _, err := authserver.New(cfg); err != nil {
			t.Fatalf("before the change: %v", err)
		}
		tc.change(&cfg)
		_, err := authserver.New(cfg)
		if err == nil || !strings.HasPrefix(err.Error(), "authserver: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: the error has the password in it: %v", name, err)
		}
	}
	if len(cases) != 19 {
		t.Errorf("%d cases, want 19", len(cases))
	}
}
