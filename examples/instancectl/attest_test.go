// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/keystore"
)

func TestAttest(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		s := startServers(t, nil)
		place := []string{"-store", store, "-keys", filepath.Join(t.TempDir(), "keys"), "-name", "k"}
		attest := func(more ...string) []string {
			return append(append([]string{"attest", "-client-id", clientID}, place...), more...)
		}
		if r := instancectl(t, attest("-attestation", writeFile(t, "a", "x"))...); r.status != 1 || !strings.Contains(r.stderr, "no such key") {
			t.Errorf("push without a key: %+v", r)
		}
		out := filepath.Join(t.TempDir(), "attestation")
		pulled := attested(t, ok(t, attest("-json", "-attester", s.AttesterURL, "-out", out)...), "reference-attester")
		key := view(t, ok(t, append([]string{"key", "show", "-json"}, place...)...))
		if pulled != key.Thumbprint {
			t.Errorf("the attestation is for %s, the key is %s", pulled, key.Thumbprint)
		}
		raw, err := jwtview.Decode(readPrivate(t, out))
		if err != nil {
			t.Fatal(err)
		}
		if r := ok(t, attest("-attestation", out)...); r.stdout != raw.String()+"\n" {
			t.Errorf("printed %s", r.stdout)
		}
		if self := attested(t, ok(t, attest("-json", "-self", s.self)...), "self-1"); self != key.Thumbprint {
			t.Errorf("attested itself for %s, the key is %s", self, key.Thumbprint)
		}
		if s.Requests() != 0 {
			t.Errorf("%d requests to the authorization server", s.Requests())
		}
	})
}

// attested returns the thumbprint of the key that a printed attestation is for.
func attested(t *testing.T, r result, kid string) string {
	t.Helper()
	views := exampletest.Lines[jwtview.View](t, r.stdout)
	if len(views) != 1 {
		t.Fatalf("printed %q", r.stdout)
	}
	var header struct{ Kid, Typ string }
	var claims struct {
		Sub string
		Cnf struct{ JWK jose.JSONWebKey }
	}
	if err := json.Unmarshal(views[0].Header, &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(views[0].Claims, &claims); err != nil {
		t.Fatal(err)
	}
	if header.Typ != "oauth-client-attestation+jwt" || header.Kid != kid || claims.Sub != clientID {
		t.Errorf("attestation %s", views[0])
	}
	thumbprint, err := keystore.Thumbprint(claims.Cnf.JWK.Key)
	if err != nil {
		t.Fatal(err)
	}
	return thumbprint
}

// Without -name it is the key that token uses for the issuer.
func TestAttestIssuer(t *testing.T) {
	s := startServers(t, nil)
	dir := filepath.Join(t.TempDir(), "keys")
	ok(t, s.token("-store", "soft", "-keys", dir, "-self", s.self)...)
	names := ok(t, "key", "list", "-store", "soft", "-keys", dir).stdout
	key := view(t, ok(t, "key", "show", "-store", "soft", "-keys", dir, "-name", strings.TrimSpace(names), "-json"))
	r := ok(t, "attest", "-store", "soft", "-keys", dir, "-self", s.self, "-issuer", s.Issuer, "-client-id", clientID, "-json")
	if got := attested(t, r, "self-1"); got != key.Thumbprint {
		t.Errorf("attested %s, token used %s", got, key.Thumbprint)
	}
}

func TestAttestProfile(t *testing.T) {
	self, _ := newSelf(t)
	for profile, want := range map[string]bool{"draft-12": false, "draft-10": false, "oid4vci-1": true, "keycloak": true} {
		r := ok(t, "attest", "-store", "soft", "-self", self, "-name", "k", "-client-id", clientID, "-profile", profile)
		if got := strings.Contains(r.stdout, `"iss": "`+clientID+`"`); got != want {
			t.Errorf("%s: iss %t", profile, got)
		}
	}
}

// An attester may repeat what it was sent, as others do.
func TestAttestEchoes(t *testing.T) {
	for description, want := range map[string]string{
		"unknown device": `(\"unknown device\")`,
		"unknown device eyJhbGciOiJFUzI1NiJ9.e30.c2ln": "attestation_refused",
		"unknown device " + strings.Repeat("0a1b", 16): "attestation_refused",
	} {
		attester := httptest.NewServer(answers(http.StatusForbidden, `{"error":"no","error_description":"`+description+`"}`))
		r := instancectl(t, "attest", "-store", "soft", "-name", "k", "-client-id", clientID, "-attester", attester.URL)
		attester.Close()
		if r.status != 1 || r.stdout != "" || !strings.Contains(strconv.Quote(r.stderr), want) || strings.Contains(r.stderr, "0a1b") {
			t.Errorf("%s: %+v", description, r)
		}
	}
}
