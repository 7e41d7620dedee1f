// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	. "github.com/instancekey/instancekey/transport/transporttest"
)

// TestVerifyAtResource: what a resource verifies of a request, wrong in one thing.
func TestVerifyAtResource(t *testing.T) {
	const resource = "https://api.example.com/readings"
	c := newClient(t, Config{})
	mine, err := keystore.Thumbprint(&c.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	proof := func(edits ...func(*forger)) string {
		return c.proof(append([]func(*forger){claim("htm", "GET"), claim("htu", resource), claim("ath", "2Udy_Xap46HBcGc4R7qPloUf1COxp4NIcc0seGM8fpc")}, edits...)...)
	}
	for name, test := range map[string]struct{ attestation, pop, dpop, wrong string }{
		"good":             {c.server.Attester.Attest(&c.key.PublicKey), c.pop("", claim("aud", resource)), proof(), ""},
		"no attestation":   {"", c.pop("", claim("aud", resource)), proof(), "attestation"},
		"another's":        {c.server.Attester.Attest(&newKey().PublicKey), c.pop("", claim("aud", resource)), proof(), "attestation"},
		"for the server":   {c.server.Attester.Attest(&c.key.PublicKey), c.pop(""), proof(), "attestation"},
		"another token's":  {c.server.Attester.Attest(&c.key.PublicKey), c.pop("", claim("aud", resource)), proof(claim("ath", "x")), "DPoP"},
		"another URL's":    {c.server.Attester.Attest(&c.key.PublicKey), c.pop("", claim("aud", resource)), proof(claim("htu", c.server.Issuer)), "DPoP"},
		"another method's": {c.server.Attester.Attest(&c.key.PublicKey), c.pop("", claim("aud", resource)), proof(claim("htm", "PUT")), "DPoP"},
		"no proof":         {c.server.Attester.Attest(&c.key.PublicKey), c.pop("", claim("aud", resource)), "", "DPoP"},
	} {
		t.Run(name, func(t *testing.T) {
			h := make(http.Header)
			for field, value := range map[string]string{transport.HeaderAttestation: test.attestation, transport.HeaderAttestationPoP: test.pop, "DPoP": test.dpop} {
				if value != "" {
					h.Set(field, value)
				}
			}
			key, err := c.server.VerifyAttestation(h, resource)
			if (err != nil) != (test.wrong == "attestation") || err == nil && key != mine {
				t.Errorf("attestation of %s: %v", key, err)
			}
			key, err = c.server.VerifyDPoP(h, "GET", resource, "the token")
			if (err != nil) != (test.wrong == "DPoP") || err == nil && key != mine {
				t.Errorf("proof of %s: %v", key, err)
			}
		})
	}
}

// TestFurtherEndpoints: they are in the metadata, and answer; where the client
// authenticates, its requests are judged.
func TestFurtherEndpoints(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("page " + r.FormValue("q"))) })
	c := newClient(t, Config{
		Policy: Policy{NoRandomRefusals: true, Answer: func(r Request) (int, map[string]any) {
			if strings.Contains(string(r.Body), "refuse") {
				return 400, map[string]any{"error": "access_denied"}
			}
			return 200, map[string]any{"key": r.KeyThumbprint, "dpop": r.DPoPThumbprint}
		}},
		Endpoints: []string{"backchannel_authentication"},
		Pages:     map[string]http.Handler{"authorization": page},
	})
	send := func(body string, pop string) string {
		return c.code(c.do(parts{endpoint: "backchannel_authentication", attestation: []string{c.server.Attester.Attest(&c.key.PublicKey)}, pop: []string{pop}, body: body}))
	}
	if code := send("", c.pop(c.challenge())); code != "" {
		t.Error(code)
	}
	if code := send("refuse", c.pop(c.challenge())); code != "access_denied" {
		t.Error(code)
	}
	if code := send("", c.pop("mine")); code != "use_attestation_challenge" {
		t.Error(code)
	}
	got := c.server.Requests("backchannel_authentication")
	if len(got) != 3 || got[0].KeyThumbprint == "" || got[0].DPoPThumbprint != "" || got[1].Status != 400 || got[1].Code != "access_denied" {
		t.Errorf("recorded %+v", got)
	}
	resp := c.do(parts{method: "POST", endpoint: "authorization", body: "q=x"})
	if resp.StatusCode != 200 || c.server.Count("authorization") != 1 {
		t.Errorf("the page: %d", resp.StatusCode)
	}
	var metadata map[string]any
	if err := json.NewDecoder(c.do(parts{method: "GET", endpoint: Metadata}).Body).Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backchannel_authentication", "authorization"} {
		if metadata[name+"_endpoint"] != c.server.Endpoint(name) {
			t.Errorf("metadata has %s as %v", name, metadata[name+"_endpoint"])
		}
	}
	if rt := c.server.Transport(); len(rt.Endpoints) != 5 {
		t.Errorf("the transport authenticates at %q", rt.Endpoints)
	}
}
