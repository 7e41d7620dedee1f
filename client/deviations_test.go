// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// The deviations of a profile as SPIFFE's is, and what they are for.
const (
	witType  = "wit+jwt"
	spiffeID = "spiffe://example.org/meter/7"
)

var errTrustDomain = errors.New("another trust domain")

func checkTrustDomain(sub string) error {
	if !strings.HasPrefix(sub, "spiffe://example.org/") {
		return errTrustDomain
	}
	return nil
}

func spiffe(cfg *client.Config) {
	cfg.Deviations = client.Deviations{AttestationType: witType, CheckSubject: checkTrustDomain}
}

// newSPIFFERig is a rig whose server speaks that profile.
func newSPIFFERig(t testing.TB) *rig {
	r := newRig(t, transporttest.Policy{})
	r.Server = transporttest.New(t, transporttest.Config{Policy: transporttest.Policy{NoRandomRefusals: true}, AttestationType: witType, Subject: spiffeID, Clock: func() time.Time { return r.now() }})
	return r
}

func TestDeviationsC41(t *testing.T) {
	r := newSPIFFERig(t)
	c := r.client(t, spiffe)
	for range 2 {
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if n, calls := r.total(), r.attester.calls(); n != 4 || len(calls) != 1 || calls[0].Type != witType || calls[0].ClientID != r.ClientID {
		t.Errorf("%d requests, attester asked %v; want metadata, challenge, two tokens, and one attestation of type %s", n, calls, witType)
	}
	for _, request := range r.Requests(transporttest.Token) {
		wantForm(t, request, map[string]string{"client_id": r.ClientID})
		if attestation := transporttest.ParseProof(request.Attestation()); attestation.Header["typ"] != witType || attestation.Claims["sub"] != spiffeID {
			t.Errorf("attestation with typ %v and sub %v", attestation.Header["typ"], attestation.Claims["sub"])
		}
	}
}

// TestDeviationsLeaveOtherChecksC41: a profile's typ and sub take the place of
// the draft's; everything else is checked as ever, before anything is sent.
func TestDeviationsLeaveOtherChecksC41(t *testing.T) {
	other := jose.JSONWebKey{Key: newKey(t, "ES256").Public()}
	with := func(name string, value any) forgery {
		f := forgery{header: map[string]any{"typ": witType}, claims: map[string]any{"sub": spiffeID}}
		if name == "typ" {
			f.header[name] = value
		} else {
			f.claims[name] = value
		}
		return f
	}
	onlyType := func(cfg *client.Config) { cfg.Deviations.AttestationType = witType }
	onlySubject := func(cfg *client.Config) { cfg.Deviations.CheckSubject = checkTrustDomain }
	for name, test := range map[string]struct {
		edit   func(*client.Config)
		attest forgery
		algs   []string // that the server lists
		reason string   // "": it passes
	}{
		"as the profile has it":          {spiffe, with("", nil), nil, ""},
		"the draft's typ":                {spiffe, with("typ", "oauth-client-attestation+jwt"), nil, `typ is "oauth-client-attestation+jwt"`},
		"typ in another case":            {spiffe, with("typ", "WIT+JWT"), nil, `typ is "WIT+JWT"`},
		"typ of a PoP":                   {spiffe, with("typ", "oauth-client-attestation-pop+jwt"), nil, "typ is"},
		"sub that the hook refuses":      {spiffe, with("sub", "spiffe://other.example/meter"), nil, `sub "spiffe://other.example/meter": another trust domain`},
		"client_id is refused as sub":    {spiffe, with("sub", "client"), nil, "another trust domain"},
		"no sub":                         {spiffe, with("sub", nil), nil, "no sub"},
		"sub empty":                      {spiffe, with("sub", ""), nil, "no sub"},
		"cnf of another key":             {spiffe, with("cnf", map[string]any{"jwk": other}), nil, "it is for key"},
		"no cnf":                         {spiffe, with("cnf", nil), nil, "no cnf"},
		"expired":                        {spiffe, with("exp", testNow.Unix()), nil, "expired"},
		"no exp":                         {spiffe, with("exp", nil), nil, "no exp"},
		"alg not listed":                 {spiffe, with("", nil), []string{"ES384"}, "its algorithm, ES256, only"},
		"profile of the typ alone":       {onlyType, with("sub", "client"), nil, ""},
		"profile of the typ, other sub":  {onlyType, with("", nil), nil, "it is for client"},
		"profile of the sub alone":       {onlySubject, with("typ", "oauth-client-attestation+jwt"), nil, ""},
		"profile of the sub, other typ":  {onlySubject, with("", nil), nil, "typ is"},
		"profile's attestation, without": {func(*client.Config) {}, with("", nil), nil, "typ is"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
				return forge(t, req.Key, r.clock.now(), test.attest), nil
			})
			r.edit(transporttest.Metadata, func(m map[string]any) { m["client_attestation_signing_alg_values_supported"] = test.algs })
			_, err := r.client(t, test.edit).Token(t.Context())
			sent := r.total() - r.Count(transporttest.Metadata)
			if test.reason == "" {
				if errors.Is(err, client.ErrInvalidAttestation) || r.Count(transporttest.Token) != 1 {
					t.Errorf("%v, %d token requests, want one", err, r.Count(transporttest.Token))
				}
				return
			}
			if !errors.Is(err, client.ErrInvalidAttestation) || !strings.Contains(err.Error(), test.reason) || sent != 0 || r.store.signed.Load() != 0 {
				t.Errorf("%v after %d requests and %d signatures, want ErrInvalidAttestation with %q before any", err, sent, r.store.signed.Load(), test.reason)
			}
			if errors.Is(err, errTrustDomain) != strings.Contains(test.reason, errTrustDomain.Error()) {
				t.Errorf("%v: is the hook's: %t", err, errors.Is(err, errTrustDomain))
			}
		})
	}
}

func TestDeviationsOfCacheEntriesC41(t *testing.T) {
	r, cache := newSPIFFERig(t), newMemoryCache()
	with := func(cfg *client.Config) { spiffe(cfg); cfg.Cache = cache }
	for run := range 2 {
		if err := grant(t.Context(), r.client(t, with)); err != nil || len(r.attester.calls()) != 1 {
			t.Errorf("run %d: %v, attester asked %d times in all, want 1", run, err, len(r.attester.calls()))
		}
	}
	// Another server's profile, or none, over the same key and cache.
	for name, edit := range map[string]func(*client.Config){
		"none":            func(cfg *client.Config) { cfg.Deviations = client.Deviations{} },
		"another subject": func(cfg *client.Config) { cfg.Deviations.CheckSubject = func(string) error { return errTrustDomain } },
		"another type":    func(cfg *client.Config) { cfg.Deviations.AttestationType = "other+jwt" },
	} {
		before, asked := r.total(), len(r.attester.calls())
		err := grant(t.Context(), r.client(t, with, edit))
		if !errors.Is(err, client.ErrInvalidAttestation) || r.total() != before+1 {
			t.Errorf("%s: %v after %d requests, want ErrInvalidAttestation after one for metadata", name, err, r.total()-before)
		}
		if n := len(r.attester.calls()) - asked; n != 1 {
			t.Errorf("%s: attester asked %d times, want 1: the entry does not fit", name, n)
		}
	}
}

func TestNewRefusesAttestationTypesC41(t *testing.T) {
	for typ, ok := range map[string]bool{
		"": true, witType: true, "oauth-client-attestation+jwt": true, "application/wit+jwt": true, "JWT": true,
		" ": false, "wit+jwt ": false, "wit jwt": false, "\twit+jwt": false, "wit+jwt\r\nX: 1": false, "a/b/c": false, "/": false,
		`"wit+jwt"`: false, "\u00fcber+jwt": false, strings.Repeat("a", 200): false,
		"oauth-client-attestation-pop+jwt": false, "OAuth-Client-Attestation-PoP+JWT": false, "application/oauth-client-attestation-pop+jwt": false,
		"dpop+jwt": false, "application/DPoP+jwt": false, "client-attestation-request+jwt": false,
	} {
		t.Run(fmt.Sprintf("%.40q", typ), func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			cfg.Deviations.AttestationType = typ
			c, err := client.New(t.Context(), cfg)
			if (err == nil) != ok {
				t.Errorf("error %v, want ok = %t", err, ok)
			}
			if c != nil {
				c.Close()
			}
			if n := r.store.creates.Load(); (n == 1) != ok || r.total() != 0 {
				t.Errorf("%d keys created, %d requests sent", n, r.total())
			}
		})
	}
}

func TestRefreshTokensOfAnyKeyC41(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	anyKey := func(cfg *client.Config) { cfg.Deviations.RefreshTokensOfAnyKey = true }
	stored, err := r.client(t).Bind(&oauth2.Token{AccessToken: "ACCESS", RefreshToken: "REFRESH", Expiry: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := keystore.Thumbprint(newKey(t, "ES256").Public())
	for name, test := range map[string]struct {
		change         func(*client.StoredToken)
		without, with  bool // whether it is adopted, without and with the deviation
		accessTokenToo bool
	}{
		"the same key": {func(*client.StoredToken) {}, true, true, true},
		"another key":  {func(s *client.StoredToken) { s.Thumbprint = other }, false, true, true},
		"bound to a lost key": {func(s *client.StoredToken) {
			s.Thumbprint, s.DPoPThumbprint = other, other
		}, false, true, false},
		"another issuer": {func(s *client.StoredToken) { s.Issuer += "/" }, false, false, false},
		"another client": {func(s *client.StoredToken) { s.ClientID = "other" }, false, false, false},
		"another key and client": {func(s *client.StoredToken) {
			s.Thumbprint, s.ClientID = other, "other"
		}, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := stored
			test.change(&changed)
			for _, deviates := range []bool{false, true} {
				c, want := r.client(t), test.without
				if deviates {
					c, want = r.client(t, anyKey), test.with
				}
				token, err := c.Adopt(changed)
				if (err == nil) != want || errors.Is(err, client.ErrOtherKey) == want {
					t.Fatalf("with the deviation %t: %v, want adopted %t", deviates, err, want)
				}
				if err == nil && (token.RefreshToken != "REFRESH" || token.Valid() != test.accessTokenToo) {
					t.Errorf("with the deviation %t: refresh token %q, access token valid %t", deviates, token.RefreshToken, token.Valid())
				}
			}
		})
	}
	if n := r.total(); n != 0 {
		t.Errorf("%d requests sent, want 0", n)
	}
}

func TestSelfAttesterOfAProfileC41(t *testing.T) {
	signing, instance := newKey(t, "ES256"), newKey(t, "ES256")
	for name, test := range map[string]struct {
		subject, typ   string
		wantSub, wantT string
	}{
		"the draft's": {"", "", "client", "oauth-client-attestation+jwt"},
		"profile's":   {spiffeID, witType, spiffeID, witType},
	} {
		t.Run(name, func(t *testing.T) {
			self := client.SelfAttester{Key: signing, Subject: test.subject, Claims: map[string]any{"sub": "mine"}}
			attestation, err := self.Attest(t.Context(), client.AttestRequest{ClientID: "client", Type: test.typ, Key: instance})
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.ParseSigned(attestation, []jose.SignatureAlgorithm{jose.ES256})
			if err != nil {
				t.Fatal(err)
			}
			var claims jwt.Claims
			if err := token.Claims(signing.Public(), &claims); err != nil {
				t.Fatal(err)
			}
			if typ := token.Headers[0].ExtraHeaders[jose.HeaderType]; typ != test.wantT || claims.Subject != test.wantSub {
				t.Errorf("typ %v and sub %q, want %q and %q", typ, claims.Subject, test.wantT, test.wantSub)
			}
		})
	}
	// Through a Client, which checks what it is given.
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, spiffe, func(cfg *client.Config) { cfg.Attester = client.SelfAttester{Key: signing, Subject: spiffeID} })
	if _, err := c.Token(t.Context()); errors.Is(err, client.ErrInvalidAttestation) || r.Count(transporttest.Token) != 1 {
		t.Errorf("%v, %d token requests, want one", err, r.Count(transporttest.Token))
	}
}
