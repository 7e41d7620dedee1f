// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

var setupChecks = []string{
	"system clock", "issuer's clock", "instance key", "issuer's metadata", "authentication method", "proof algorithm", "token endpoint",
	"server's challenge", "grant", "attester", "attestation", "attestation's iat", "header size", "client authentication",
}

// TestDoctorSetup: what is well is said to be well, no token is asked for, and the key
// that was made for it is gone.
func TestDoctorSetup(t *testing.T) {
	m, start := newMistaken(t)
	start()
	tokens := 0
	m.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" && r.Method == http.MethodPost {
			tokens++
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if strings.Contains(string(body), grantClient) {
				t.Error("a token was asked for")
			}
		}
		return false
	}
	d := examined(t, m.doctor("-attester", m.attester)...)
	d.failed()
	if !slices.Equal(d.checks(), setupChecks) {
		t.Errorf("checked %q\nwant    %q", d.checks(), setupChecks)
	}
	d.want("client authentication", statusOK, "takes the attestation")
	d.want("issuer's clock", statusWarn, "without TLS")
	examined(t, m.doctor("-self", m.self)...).failed()
	examined(t, m.provisioned(func(_, _ map[string]any) {})...).failed()
	examined(t, m.doctor()...).failed()
	if alone := examined(t, "-attester", m.attester, "-client-id", clientID); true {
		alone.failed()
		alone.want("attestation", statusOK, "good until")
	}
	if tokens == 0 {
		t.Error("nothing was authenticated")
	}

	m.server.RefreshTokens = true // then the made-up token is what is refused
	start()
	examined(t, m.doctor("-attester", m.attester)...).want("client authentication", statusOK, "knows the client")

	t.Run("TPM", func(t *testing.T) {
		s := serve(t, tpmtest.Simulator(t))
		keys := t.TempDir()
		args := m.doctor("-store", s.store, "-keys", keys, "-attester", m.attester)
		d := examined(t, args...)
		d.failed()
		d.want("instance key", statusOK, "for these checks alone; token makes or uses instance-")
		d.want("key folder", statusOK, "has 0 keys")
		pin := writeFile(t, "pin", "1234")
		ok(t, "key", "create", "-store", s.store, "-keys", keys, "-name", "k", "-pin-file", pin)
		examined(t, append(args, "-name", "k")...).want("instance key", statusOK, "for these checks alone")
		examined(t, append(args, "-name", "k", "-pin-file", pin)...).want("instance key", statusOK, "k, ES256")
	})
}

// TestDoctorMistakes has a row for each mistake that somebody makes who sets up a device, a
// server or an attester: which check finds it, and what is said of it.
func TestDoctorMistakes(t *testing.T) {
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	nothing := "http://" + closedPort(t)
	metadata := func(name string, value any) func(*mistaken) []string {
		return func(m *mistaken) []string {
			m.metadata = func(document map[string]any) {
				if document[name] = value; value == nil {
					delete(document, name)
				}
			}
			return m.doctor("-attester", m.attester)
		}
	}
	at := func(attester bool, path string, answer func(http.ResponseWriter, *http.Request) bool) func(*mistaken) []string {
		return func(m *mistaken) []string {
			m.answer = func(w http.ResponseWriter, r *http.Request) bool {
				isAttester := "http://"+r.Host == m.attester
				return isAttester == attester && strings.HasPrefix(r.URL.Path, path) && answer(w, r)
			}
			return m.doctor("-attester", m.attester)
		}
	}
	code := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", "https://elsewhere.example.com/")
			w.WriteHeader(code)
			return true
		}
	}
	flags := func(more ...string) func(*mistaken) []string {
		return func(m *mistaken) []string { return m.doctor(append(more, "-attester", m.attester)...) }
	}
	provisioned := func(change func(header, claims map[string]any)) func(*mistaken) []string {
		return func(m *mistaken) []string { return m.provisioned(change) }
	}
	for name, tt := range map[string]struct {
		make   func(m *mistaken) []string
		check  string
		status status
		words  []string
	}{
		// -issuer
		"issuer is down":         {func(m *mistaken) []string { return []string{"-issuer", nothing, "-client-id", clientID} }, "issuer's metadata", statusFail, []string{"nothing listens there"}},
		"issuer is no host":      {func(*mistaken) []string { return []string{"-issuer", "https://as.invalid", "-client-id", clientID} }, "issuer's metadata", statusFail, []string{"no host of this name"}},
		"issuer's CA is private": {func(*mistaken) []string { return []string{"-issuer", tls.URL, "-client-id", clientID} }, "issuer's metadata", statusFail, []string{"-ca FILE"}},
		"issuer has no TLS": {func(m *mistaken) []string {
			return []string{"-issuer", strings.Replace(m.issuer, "http:", "https:", 1), "-client-id", clientID}
		}, "issuer's metadata", statusFail, []string{"does not speak TLS"}},
		"issuer with a slash": {func(m *mistaken) []string { return []string{"-issuer", m.issuer + "/", "-client-id", clientID} }, "issuer's metadata", statusFail, []string{"-issuer http://127.0.0.1", "to the last slash"}},
		"issuer by another name": {func(m *mistaken) []string {
			return []string{"-issuer", strings.Replace(m.issuer, "127.0.0.1", "localhost", 1), "-client-id", clientID}
		}, "issuer's metadata", statusFail, []string{"-issuer http://127.0.0.1"}},
		"issuer of another path": {func(m *mistaken) []string { return []string{"-issuer", m.issuer + "/realm", "-client-id", clientID} }, "issuer's metadata", statusFail, []string{"there is none at", "/.well-known/oauth-authorization-server/realm and", "realms/REALM"}},
		"issuer is a page":       {at(false, "/.well-known/", page), "issuer's metadata", statusFail, []string{"text/html", "login page"}},
		"issuer redirects":       {at(false, "/.well-known/", code(302)), "issuer's metadata", statusFail, []string{"elsewhere.example.com", "follow no redirect"}},
		"issuer is overloaded":   {at(false, "/.well-known/", code(503)), "issuer's metadata", statusFail, []string{"503"}},

		// What the server says of itself
		"no token endpoint":          {metadata("token_endpoint", nil), "issuer's metadata", statusFail, []string{"no token_endpoint"}},
		"endpoint that is no URL":    {metadata("token_endpoint", "token"), "issuer's metadata", statusFail, []string{"token_endpoint"}},
		"token endpoint is down":     {metadata("token_endpoint", nothing+"/token"), "token endpoint", statusFail, []string{"nothing listens there"}},
		"endpoint on another host":   {metadata("token_endpoint", tls.URL+"/token"), "token endpoint", statusFail, []string{"-ca FILE"}},
		"challenge endpoint is gone": {at(false, "/challenge", code(404)), "server's challenge", statusFail, []string{"404", "challenge_endpoint"}},
		"challenge endpoint is down": {metadata("challenge_endpoint", nothing+"/challenge"), "server's challenge", statusFail, []string{"nothing listens there"}},
		"server without attestation": {metadata("token_endpoint_auth_methods_supported", []string{"client_secret_basic"}), "authentication method", statusFail, []string{"client_secret_basic", "switched on at the server"}},
		"method that is not offered": {flags("-method", "dpop"), "authentication method", statusFail, []string{"-method pop"}},
		"method that is not offered 2": {func(m *mistaken) []string {
			m.server.Clients[0].Method = authserver.MethodDPoP
			return m.doctor("-method", "pop", "-attester", m.attester)
		}, "authentication method", statusFail, []string{"-method dpop"}},
		"key's algorithm": {func(m *mistaken) []string {
			m.server.ProofAlgorithms = []jose.SignatureAlgorithm{"ES256"}
			return m.doctor("-alg", "ES384", "-attester", m.attester)
		}, "proof algorithm", statusFail, []string{"-alg ES256"}},
		"attester's algorithm": {func(m *mistaken) []string {
			m.server.AttestationAlgorithms = []jose.SignatureAlgorithm{"ES384"}
			m.server.AttesterKeys.Keys = nil
			m.server.AttesterRoots = tls.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			return m.doctor("-attester", m.attester)
		}, "attestation", statusFail, []string{"algorithm"}},
		"DPoP's algorithm": {func(m *mistaken) []string {
			m.metadata = func(d map[string]any) { d["dpop_signing_alg_values_supported"] = []string{"EdDSA"} }
			return m.doctor("-dpop", "-attester", m.attester)
		}, "DPoP", statusFail, []string{"leave -dpop out"}},
		"server without DPoP": {func(m *mistaken) []string {
			m.metadata = func(d map[string]any) { delete(d, "dpop_signing_alg_values_supported") }
			return m.doctor("-dpop", "-attester", m.attester)
		}, "DPoP", statusWarn, []string{"-dpop"}},
		"grant that is off":     {flags("-grant", "refresh_token"), "grant", statusFail, []string{"client_credentials"}},
		"device grant is off":   {flags("-grant", "device_code"), "grant", statusFail, []string{"device_authorization_endpoint"}},
		"scope that is unknown": {flags("-scope", "read wirte"), "scope", statusWarn, []string{"wirte", "read"}},

		// -attester
		"attester is down":         {func(m *mistaken) []string { return m.doctor("-attester", nothing) }, "attester", statusFail, []string{"nothing listens there"}},
		"attester's CA is private": {func(m *mistaken) []string { return m.doctor("-attester", tls.URL) }, "attester", statusFail, []string{"-ca FILE"}},
		"attester is the server":   {func(m *mistaken) []string { return m.doctor("-attester", m.issuer) }, "attester", statusFail, []string{"is an authorization server"}},
		"attester is a page":       {at(true, "/challenge", page), "attester", statusFail, []string{"not as a Client Attester"}},
		"attester of another path": {func(m *mistaken) []string { return m.doctor("-attester", m.attester+"/v2") }, "attester", statusFail, []string{"404", "correct -attester"}},
		"attester redirects":       {at(true, "/challenge", code(307)), "attester", statusFail, []string{"follow no redirect"}},
		"attester is overloaded":   {at(true, "/challenge", code(503)), "attester", statusFail, []string{"503"}},
		"attester with a slash":    {func(m *mistaken) []string { return m.doctor("-attester", m.attester+"/") }, "attestation", statusFail, []string{"leave the slash"}},
		"attester by another name": {func(m *mistaken) []string {
			return m.doctor("-attester", strings.Replace(m.attester, "127.0.0.1", "localhost", 1))
		}, "attestation", statusFail, []string{"invalid_pop", "what the attester calls itself"}},
		"attester wants a TPM": {func(m *mistaken) []string {
			m.attesting.Evidence = strictEvidence(m.t)
			return m.doctor("-attester", m.attester)
		}, "attester", statusFail, []string{"in software", "-store"}},
		"client unknown there": {func(m *mistaken) []string {
			m.attesting.Clients = []string{"other"}
			return m.doctor("-attester", m.attester)
		}, "attestation", statusFail, []string{"policy_violation", "-client-id"}},
		"attested for a moment": {func(m *mistaken) []string {
			m.attesting.Lifetime = 90 * time.Second
			return m.doctor("-attester", m.attester)
		}, "attestation", statusWarn, []string{"attest for longer"}},
		"attester without iss": {flags("-profile", "oid4vci-1"), "what -profile demands", statusFail, []string{"no iss", "attesterd -iss"}},
		"attester without x5c": {func(m *mistaken) []string {
			m.attesting.Issuer = "https://maker.example.com"
			return m.doctor("-profile", "oid4vci-1", "-attester", m.attester)
		}, "what -profile demands", statusWarn, []string{"no x5c"}},
		"claims that are too long": {func(m *mistaken) []string {
			m.attesting.Claims = map[string]any{"story": strings.Repeat("x", 9000)}
			return m.doctor("-attester", m.attester)
		}, "header size", statusWarn, []string{"nginx"}},
		"claims beyond all measure": {func(m *mistaken) []string {
			m.attesting.Claims = map[string]any{"story": strings.Repeat("x", 20000)}
			return m.doctor("-attester", m.attester)
		}, "header size", statusFail, []string{"Node.js"}},

		// -attestation
		"provisioned for a key that is not there": {func(m *mistaken) []string {
			return append(m.provisioned(func(_, _ map[string]any) {}), "-name", "other")
		}, "instance key", statusFail, []string{"key import", "other"}},
		"provisioned for another key":    {provisioned(func(_, c map[string]any) { c["cnf"] = map[string]any{"jwk": publicOf(newAttesterKey(t))} }), "attestation", statusFail, []string{"provisioned anew"}},
		"provisioned for another client": {provisioned(func(_, c map[string]any) { c["sub"] = "other" }), "attestation", statusFail, []string{"other", "-client-id"}},
		"provisioned long ago":           {provisioned(func(_, c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }), "attestation", statusFail, []string{"expired", "provisioned anew"}},
		"provisioned without iat":        {provisioned(func(_, c map[string]any) { delete(c, "iat") }), "attestation's iat", statusFail, []string{"draft -12"}},
		"provisioned in the future":      {provisioned(func(_, c map[string]any) { c["iat"] = time.Now().Add(time.Hour).Unix() }), "attestation's iat", statusFail, []string{"clocks"}},
		"provisioned two days ago":       {provisioned(func(_, c map[string]any) { c["iat"] = time.Now().Add(-48 * time.Hour).Unix() }), "attestation's iat", statusWarn, []string{"48h"}},
		"provisioned as another type":    {provisioned(func(h, _ map[string]any) { h["typ"] = "JWT" }), "attestation", statusFail, []string{"typ"}},

		// What server and client know of each other
		"client unknown at the server": {func(m *mistaken) []string { m.server.Clients[0].ID = "other"; return m.doctor("-attester", m.attester) }, "client authentication", statusFail, []string{"has a client", clientID, "register"}},
		"attester not trusted": {func(m *mistaken) []string {
			m.server.AttesterKeys.Keys = m.server.AttesterKeys.Keys[:1]
			return m.doctor("-attester", m.attester)
		}, "client authentication", statusFail, []string{"trusts the attester's key", "/jwks has it"}},
		"self not trusted": {func(m *mistaken) []string {
			m.server.AttesterKeys.Keys = m.server.AttesterKeys.Keys[1:]
			return m.doctor("-self", m.self)
		}, "client authentication", statusFail, []string{"public half of"}},
		"client of the other method": {func(m *mistaken) []string {
			m.server.Clients = []authserver.Client{{ID: "other"}, {ID: clientID, Method: authserver.MethodDPoP}}
			return m.doctor("-attester", m.attester)
		}, "client authentication", statusFail, []string{"use -method dpop"}},
		"attestation too old for it": {func(m *mistaken) []string {
			m.server.MaxAttestationAge = time.Minute
			return m.provisioned(func(_, c map[string]any) { c["iat"] = time.Now().Add(-2 * time.Hour).Unix() })
		}, "client authentication", statusFail, []string{"use_fresh_attestation"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, start := newMistaken(t)
			args := tt.make(m)
			start()
			d := examined(t, args...)
			d.want(tt.check, tt.status, tt.words...)
			for _, f := range d.findings {
				if f.Status == statusFail && f.Check != tt.check && f.Check != "issuer's clock" && f.Check != "client authentication" {
					t.Errorf("it is blamed on %q, too", f.Check)
				}
				if strings.Contains(f.Found+f.Advice, "Config") || strings.Contains(f.Found+f.Advice, "%!") {
					t.Errorf("it says %+v", f)
				}
			}
		})
	}
}
