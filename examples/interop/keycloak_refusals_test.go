// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	reference "github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/tpm"
	"github.com/instancekey/instancekey/transport"
)

// A publishedAttester has its keys at a URL, with kid, alg and use.
type publishedAttester struct {
	attester
	url string

	mu   sync.Mutex
	keys []jose.JSONWebKey
}

func newPublishedAttester(t *testing.T) *publishedAttester {
	t.Helper()
	p := new(publishedAttester)
	p.rotate(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: p.keys})
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// rotate gives the attester another key, which is published beside the old one.
func (p *publishedAttester) rotate(t *testing.T) {
	t.Helper()
	p.attester = newAttester(t)
	kid, err := keystore.Thumbprint(p.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, jose.JSONWebKey{Key: p.Key.Public(), KeyID: kid, Algorithm: p.Key.Algorithm(), Use: "sig"})
}

// refusals: each ends with one request, with Keycloak's own words in the error
// and with advice where the cause is known.
func (r *keycloakRig) refusals(t *testing.T) {
	edit := func(attributes map[string]any, changes map[string]any) func(map[string]any) {
		return func(c map[string]any) {
			maps.Copy(c, changes)
			if attributes != nil {
				c["attributes"] = attributes
			}
		}
	}
	for id, change := range map[string]func(map[string]any){
		"trusts-nobody":  edit(map[string]any{}, nil),
		"trusts-another": edit(map[string]any{"attester_trust_idps": "another"}, nil),
		"with-a-secret":  edit(nil, map[string]any{"clientAuthenticatorType": "client-secret", "secret": "s"}),
		"disabled":       edit(nil, map[string]any{"enabled": false}),
		"users-only":     edit(nil, map[string]any{"serviceAccountsEnabled": false}),
	} {
		r.create(t, "/"+r.realm+"/clients", "client.json", func(c map[string]any) {
			c["clientId"] = id
			change(c)
		})
	}
	kid, err := keystore.Thumbprint(r.attester.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	stranger := newAttester(t).SelfAttester
	impostor := stranger
	impostor.KeyID = kid
	self := r.attester.SelfAttester
	self.Issuer = "https://attester.example.com"
	foreign := r.attester.SelfAttester
	foreign.Subject = "meter"
	anySubject := client.Deviations{CheckSubject: func(string) error { return nil }}
	slow := func() time.Time { return time.Now().Add(-time.Hour) }

	const hidden = "Invalid client or Invalid client credentials"
	for name, test := range map[string]struct {
		config        client.Config
		refusal       string // status and code
		words, advice string // how Keycloak's description begins, and what the advice has in it
	}{
		"unknown attester key":      {client.Config{Attester: stranger}, "400 invalid_client_attestation", "No matching key found for kid: ", "attester_trust_idps"},
		"another key under its kid": {client.Config{Attester: impostor}, "400 invalid_client_attestation", "Invalid token signature", "under its kid"},
		"expired attestation":       {client.Config{Clock: slow}, "400 invalid_client_attestation", "Token is not active", "clocks"},
		"another client's attestation": {client.Config{ClientID: "meter-dpop", Attester: foreign, Deviations: anySubject},
			"400 invalid_client_attestation", "The sub claim (subject) MUST match the client_id parameter", "another client"},
		"client that trusts nobody":       {client.Config{ClientID: "trusts-nobody"}, "400 invalid_client_attestation", "Cannot load attester keys: attester_trust_idps", "attester_trust_idps"},
		"client that trusts another":      {client.Config{ClientID: "trusts-another"}, "400 invalid_client_attestation", "No matching key found for kid: ", "attester_trust_idps"},
		"no iss in the attestation":       {client.Config{Profile: transport.ProfileDraft12}, "400 invalid_client_attestation", "The iss (issuer) claim MUST contain", "ProfileKeycloak"},
		"no iss in the PoP JWT":           {client.Config{Profile: transport.ProfileDraft12, Attester: self}, "400 invalid_client_attestation", "The value of the iss (issuer) claim", "ProfileKeycloak"},
		"no alg in cnf.jwk":               {client.Config{Profile: transport.ProfileOpenID4VCI, Attester: withoutAlg{r.attester.SelfAttester}}, "400 invalid_client_attestation", "Key with algorithm null", "alg"},
		"unknown client":                  {client.Config{ClientID: "nobody"}, "401 invalid_client", hidden, "Config.ClientID"},
		"disabled client":                 {client.Config{ClientID: "disabled"}, "401 invalid_client", hidden, "disabled"},
		"client registered with a secret": {client.Config{ClientID: "with-a-secret"}, "401 unauthorized_client", hidden, "attestation-based"},
		"client without service account":  {client.Config{ClientID: "users-only"}, "401 unauthorized_client", "Client not enabled to retrieve service account", "serviceAccountsEnabled"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.client(t, test.config).Token(t.Context(), "email")
			status, code, _ := strings.Cut(test.refusal, " ")
			var refused *oauth2.RetrieveError
			if !errors.As(err, &refused) || refused.ErrorCode != code || !strings.HasPrefix(refused.ErrorDescription, test.words) {
				t.Errorf("%v: %v, want %s, %q", err, refused, code, test.words)
			}
			if advice := client.Advice(err); !strings.Contains(advice, test.advice) || !strings.HasSuffix(err.Error(), advice) {
				t.Errorf("advice %q in %q, want one with %q", advice, err, test.advice)
			}
			r.check(t, r.realm, map[string]int{kcMetadata: 1, "POST /protocol/openid-connect/token " + status: 1})
		})
	}
}

// withoutAlg is an attester that takes alg out of cnf.jwk.
type withoutAlg struct{ client.SelfAttester }

func (w withoutAlg) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	claims := map[string]any{
		"iss": "attester", "sub": req.ClientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"cnf": map[string]any{"jwk": jose.JSONWebKey{Key: req.Key.Public()}},
	}
	kid, err := keystore.Thumbprint(w.Key.Public())
	if err != nil {
		return "", err
	}
	options := new(jose.SignerOptions).WithType("oauth-client-attestation+jwt").WithHeader("kid", kid)
	signer, err := jose.NewSigner(keystore.SigningKey(ctx, w.Key), options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// profiles: Keycloak's verdicts on what TestForeignVerifiers shows to others.
func (r *keycloakRig) profiles(t *testing.T) {
	leaf, anchor := certify(t, r.attester.Key.Public())
	plain := r.attester.SelfAttester
	certified := plain
	certified.Certificates = []*x509.Certificate{leaf, anchor}
	for name, test := range map[string]struct {
		profile  transport.Profile
		attester client.SelfAttester
		want     string // how the refusal begins
	}{
		"draft-12":       {transport.ProfileDraft12, plain, "The iss (issuer) claim MUST"},
		"draft-12, x5c":  {transport.ProfileDraft12, certified, "The iss (issuer) claim MUST"},
		"draft-10":       {transport.ProfileDraft10, plain, "The iss (issuer) claim MUST"},
		"oid4vci-1":      {transport.ProfileOpenID4VCI, plain, ""},
		"oid4vci-1, x5c": {transport.ProfileOpenID4VCI, certified, ""},
		"keycloak":       {transport.ProfileKeycloak, plain, ""},
		"keycloak, x5c":  {transport.ProfileKeycloak, certified, ""},
	} {
		_, err := r.client(t, client.Config{Profile: test.profile, Attester: test.attester}).Token(t.Context(), "email")
		var refused *oauth2.RetrieveError
		if (err == nil) != (test.want == "") || err != nil && (!errors.As(err, &refused) || !strings.HasPrefix(refused.ErrorDescription, test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	r.check(t, r.realm, map[string]int{kcMetadata: 7, kcToken: 4, "POST /protocol/openid-connect/token 400": 3})
}

// keys: what a TPM has besides P-256, and what softkey has.
func (r *keycloakRig) keys(t *testing.T) {
	hard, err := r.store.(*tpm.Store).CreateKey(t.Context(), "p-384", tpm.KeyOptions{Algorithm: "ES384"})
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"TPM ES384", "ES256", "ES384", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			key := hard
			if !strings.HasPrefix(alg, "TPM") {
				if key, err = softkey.New().CreateKey(t.Context(), "k", softkey.KeyOptions{Algorithm: alg}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := r.client(t, client.Config{Key: key}).Token(t.Context(), "email"); err != nil {
				t.Error(err)
			}
			r.check(t, r.realm, map[string]int{kcMetadata: 1, kcToken: 1})
		})
	}
}

// clocks: Keycloak looks at the attestation's exp alone, so a clock that is fast
// does no harm.
func (r *keycloakRig) clocks(t *testing.T) {
	fast := func() time.Time { return time.Now().Add(24 * time.Hour) }
	if _, err := r.client(t, client.Config{Clock: fast}).Token(t.Context(), "email"); err != nil {
		t.Error(err)
	}
	r.check(t, r.realm, map[string]int{kcMetadata: 1, kcToken: 1})
}

// attesters: the reference attester is asked, and its keys are where it serves
// them or in Keycloak's configuration.
func (r *keycloakRig) attesters(t *testing.T) {
	mux := http.NewServeMux()
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	server, err := reference.New(reference.Config{
		URL: web.URL, Clients: []string{"remote", "inline"}, Key: newSigningKey(t, "attester-1"), Issuer: "https://attester.example.com",
		Rounding: 10 * time.Minute, Claims: map[string]any{"vendor": "Example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/", server)
	jwks, err := json.Marshal(server.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	for id, config := range map[string]map[string]any{
		"remote": {"useJwksUrl": "true", "jwksUrl": web.URL + "/jwks"},
		"inline": {"useJwksUrl": "false", "publicKeySignatureVerifier": string(jwks)},
	} {
		r.create(t, "/"+r.realm+"/identity-provider/instances", "attester.json", func(provider map[string]any) {
			provider["alias"], provider["config"] = id, config
		})
		r.create(t, "/"+r.realm+"/clients", "client.json", func(c map[string]any) {
			c["clientId"], c["attributes"] = id, map[string]any{"attester_trust_idps": "attester," + id}
		})
		c := r.client(t, client.Config{ClientID: id, Attester: client.HTTPAttester{URL: web.URL}})
		if _, err := c.Token(t.Context(), "email"); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		r.check(t, r.realm, map[string]int{kcMetadata: 1, kcToken: 1})
	}
}

// rotation: Keycloak finds a new key of the attester's by its kid.
func (r *keycloakRig) rotation(t *testing.T) {
	r.attester.rotate(t)
	c := r.client(t, client.Config{})
	if _, err := c.Token(t.Context(), "email"); err != nil {
		t.Error(err)
	}
	r.check(t, r.realm, map[string]int{kcMetadata: 1, kcToken: 1})
}
