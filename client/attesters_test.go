// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestPushAttesterFileIsReplacedAtRunTime(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	key, err := r.store.Create(t.Context(), "provisioned")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "attestation.jwt")
	provision := func() string {
		attestation := r.Attester.Attest(key.Public())
		if err := os.WriteFile(file+".new", []byte(attestation+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		return attestation
	}
	c := r.client(t, func(cfg *client.Config) { cfg.KeyName, cfg.Attester = "provisioned", &client.PushAttester{File: file} })
	if _, err := c.Token(t.Context(), "a"); !errors.Is(err, client.ErrAttesterUnavailable) {
		t.Errorf("before anything is provisioned: %v, want ErrAttesterUnavailable", err)
	}

	first := provision()
	if _, err := c.Token(t.Context(), "b"); err != nil {
		t.Fatalf("provisioned: %v", err)
	}
	r.Deny(first)
	if _, err := c.Token(t.Context(), "c"); !errors.Is(err, client.ErrAttesterUnavailable) {
		t.Errorf("the server wants a fresher one, none is there: %v, want ErrAttesterUnavailable", err)
	}
	second := provision()
	if _, err := c.Token(t.Context(), "d"); err != nil {
		t.Errorf("a fresher one is there: %v", err)
	}
	requests := r.Requests(transporttest.Token)
	if last := requests[len(requests)-1]; last.Attestation() != second || last.Code != "" {
		t.Error("the new attestation did not arrive")
	}
	if n := r.store.creates.Load(); n != 1 {
		t.Errorf("%d keys created, want 1, by the test", n)
	}
}

func TestPushAttester(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(" a.b.c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		attester    client.PushAttester
		rejected    string
		want        string
		unavailable bool
	}{
		"string":             {client.PushAttester{Attestation: "a.b.c"}, "", "a.b.c", false},
		"string with space":  {client.PushAttester{Attestation: "\n a.b.c \r\n"}, "", "a.b.c", false},
		"string, another":    {client.PushAttester{Attestation: "a.b.c"}, "d.e.f", "a.b.c", false},
		"string, rejected":   {client.PushAttester{Attestation: "a.b.c\n"}, "a.b.c", "", true},
		"file":               {client.PushAttester{File: file}, "", "a.b.c", false},
		"file, rejected":     {client.PushAttester{File: file}, "a.b.c", "", true},
		"no such file":       {client.PushAttester{File: file + "x"}, "", "", true},
		"a folder":           {client.PushAttester{File: dir}, "", "", true},
		"neither":            {client.PushAttester{}, "", "", false},
		"both":               {client.PushAttester{Attestation: "a.b.c", File: file}, "", "", false},
		"more than a header": {client.PushAttester{File: big}, "", strings.Repeat("x", 32<<10+1), false}, // which the Client refuses
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.attester.Attest(t.Context(), client.AttestRequest{Rejected: test.rejected})
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("Attest = %.40q, %v, want %.40q", got, err, test.want)
			}
			if errors.Is(err, client.ErrAttesterUnavailable) != test.unavailable {
				t.Errorf("%v is ErrAttesterUnavailable: %t", err, !test.unavailable)
			}
			if err != nil && strings.Contains(err.Error(), "a.b.c") {
				t.Errorf("error quotes the attestation: %v", err)
			}
		})
	}
}

func TestSelfAttester(t *testing.T) {
	instance, signing := newKey(t, "ES256"), newKey(t, "ES384")
	thumbprint, err := keystore.Thumbprint(signing.Public())
	if err != nil {
		t.Fatal(err)
	}
	clock := newTestClock()
	now := float64(clock.now().Unix())
	foreign := map[string]any{
		"sub": "other", "iat": 1, "exp": int64(4102444800), "cnf": map[string]any{"jwk": jose.JSONWebKey{Key: signing.Public()}},
		"iss": "https://client.example.com", "device_type": "meter",
	}
	for name, test := range map[string]struct {
		attester  client.SelfAttester
		kid       string
		lifetime  float64
		wantExtra map[string]any
	}{
		"plain":    {client.SelfAttester{Key: signing}, thumbprint, 300, nil},
		"kid":      {client.SelfAttester{Key: signing, KeyID: "11"}, "11", 300, nil},
		"lifetime": {client.SelfAttester{Key: signing, Lifetime: 90 * time.Second}, thumbprint, 90, nil},
		"claims":   {client.SelfAttester{Key: signing, Claims: foreign}, thumbprint, 300, map[string]any{"iss": "https://client.example.com", "device_type": "meter"}},
	} {
		t.Run(name, func(t *testing.T) {
			attestation, err := test.attester.Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: instance, Clock: clock.now})
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.ParseSigned(attestation, []jose.SignatureAlgorithm{jose.ES384})
			if err != nil {
				t.Fatal(err)
			}
			header := token.Headers[0]
			if header.KeyID != test.kid || header.ExtraHeaders[jose.HeaderType] != "oauth-client-attestation+jwt" || header.JSONWebKey != nil {
				t.Errorf("header %+v, want kid %q", header, test.kid)
			}
			var claims map[string]any
			if err := token.Claims(signing.Public(), &claims); err != nil {
				t.Fatal(err)
			}
			jwk := claims["cnf"].(map[string]any)["jwk"].(map[string]any)
			if _, private := jwk["d"]; private || len(jwk) != 5 || jwk["alg"] != instance.Algorithm() {
				t.Errorf("cnf.jwk has members %v, want the four required ones and alg", jwk)
			}
			var cnf struct {
				Confirmation struct {
					JWK jose.JSONWebKey `json:"jwk"`
				} `json:"cnf"`
			}
			if err := token.Claims(signing.Public(), &cnf); err != nil {
				t.Fatal(err)
			}
			got, _ := keystore.Thumbprint(cnf.Confirmation.JWK.Key)
			if want, _ := keystore.Thumbprint(instance.Public()); got != want {
				t.Errorf("cnf is key %s, want %s", got, want)
			}
			delete(claims, "cnf")
			wants := map[string]any{"sub": "client", "iat": now, "exp": now + test.lifetime}
			for name, value := range test.wantExtra {
				wants[name] = value
			}
			if len(claims) != len(wants) {
				t.Errorf("claims %v, want %v", claims, wants)
			}
			for name, want := range wants {
				if claims[name] != want {
					t.Errorf("claim %s is %v, want %v", name, claims[name], want)
				}
			}
		})
	}
	if len(foreign) != 6 || foreign["sub"] != "other" {
		t.Errorf("the caller's Claims were changed: %v", foreign)
	}
}

func TestSelfAttesterEndToEnd(t *testing.T) {
	// The transporttest server trusts one attester, so a strict look at what
	// arrives is enough here.
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, text(document(issuerURL, nil)))
	d.site.set("https://as.example.com/token", text(`{"access_token":"t","token_type":"Bearer","expires_in":60}`))
	if _, err := d.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if request := d.attester.calls()[0]; request.Issuer != issuerURL || request.ClientID != "client" || request.Rejected != "" {
		t.Errorf("attester was asked with issuer %q, client %q, rejected %q", request.Issuer, request.ClientID, request.Rejected)
	}
}

func TestSelfAttesterErrors(t *testing.T) {
	key := newKey(t, "ES256")
	if _, err := (client.SelfAttester{}).Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key, Clock: time.Now}); err == nil {
		t.Error("no error without a key")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (client.SelfAttester{Key: key}).Attest(ctx, client.AttestRequest{ClientID: "client", Key: key, Clock: time.Now}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if _, err := (client.SelfAttester{Key: key, Claims: map[string]any{"x": func() {}}}).Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key, Clock: time.Now}); err == nil {
		t.Error("no error for a claim that has no JSON form")
	}
}

func TestSelfAttesterWithoutClock(t *testing.T) {
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("panic: %v", r)
		}
	}()
	key := newKey(t, "ES256")
	if _, err := (client.SelfAttester{Key: key}).Attest(t.Context(), client.AttestRequest{ClientID: "client", Key: key}); err != nil {
		t.Error(err)
	}
}
