// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

const policyText = `{
	"models": [{"oemid": 32473, "hwmodel": "Gateway X1"}, {"hwmodel": "Gateway X2"}],
	"minimum_versions": {"gateway-os": "2.1", "other-os": "1"},
	"require_oemboot": true,
	"ear_status": ["affirming"],
	"max_age": "30m"
}`

func parsePolicy(t testing.TB, text string) *authserver.Policy {
	t.Helper()
	policy, err := authserver.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// device is what an attester says of a device that the policy wants.
func device() object {
	return object{
		"eat_profile": "tag:example.com,2026:x", "oemid": 32473, "hwmodel": "R2F0ZXdheSBYMQ", "hwversion": []string{"B"},
		"swname": "gateway-os", "swversion": []string{"2.1"}, "oemboot": true,
		"submods": object{"platform": object{"ear_status": "affirming"}},
	}
}

// TestPolicy: step (5). Each case changes what the attester says of a device
// that would get a token.
func TestPolicy(t *testing.T) {
	set := func(claim string, value any) func(object) { return func(c object) { c[claim] = value } }
	without := func(claim string) func(object) { return func(c object) { delete(c, claim) } }
	status := func(value any) func(object) {
		return set("submods", object{"platform": object{"ear_status": value}})
	}
	const refused, stale = "invalid_client_attestation", "use_fresh_attestation"
	cases := []struct {
		name, code, reason string
		change             func(object)
	}{
		{"nothing", "", "", func(object) {}},
		{"newer version", "", "", set("swversion", []string{"2.1.0.1"})},
		{"version with more digits", "", "", set("swversion", []string{"2.10"})},
		{"version with a scheme", "", "", set("swversion", []any{"3", "multipartnumeric"})},
		{"other software", "", "", func(c object) { c["swname"], c["swversion"] = "other-os", []string{"1.0"} }},
		{"model of any maker", "", "", func(c object) { c["hwmodel"], c["oemid"] = "R2F0ZXdheSBYMg", "AAAA" }},
		{"30 minutes old", "", "", set("iat", 1_800_000_000-30*60)},

		{"wrong model", refused, `model "Gateway X9"`, set("hwmodel", "R2F0ZXdheSBYOQ")},
		{"wrong maker", refused, `of 32474`, set("oemid", 32474)},
		{"maker as text", refused, "is not one that gets tokens", set("oemid", "32473")},
		{"no maker", refused, "of <nil>", without("oemid")},
		{"no model", refused, "no hwmodel", without("hwmodel")},
		{"model not in base64url", refused, "no hwmodel", set("hwmodel", "Gateway X1")},
		{"model is a number", refused, "claims about the device", set("hwmodel", 1)},
		{"old firmware", refused, "gateway-os has the version 2.0.99", set("swversion", []string{"2.0.99"})},
		{"old firmware, by one part", refused, "has the version 2, and", set("swversion", []string{"2"})},
		{"no version", refused, "no swversion", without("swversion")},
		{"empty version", refused, "no swversion", set("swversion", []string{})},
		{"version is text alone", refused, "claims about the device", set("swversion", "2.1")},
		{"version is a number", refused, "is not numbers", set("swversion", []any{2.1})},
		{"version that can't be ordered", refused, `"2.1-rc1" is not numbers`, set("swversion", []string{"2.1-rc1"})},
		{"version with a sign", refused, "is not numbers", set("swversion", []string{"+3"})},
		{"version too large", refused, "is not numbers", set("swversion", []string{strings.Repeat("9", 40)})},
		{"unknown software", refused, `software "evil-os"`, set("swname", "evil-os")},
		{"no software", refused, `software ""`, without("swname")},
		{"Secure Boot off", refused, "oemboot is not true", set("oemboot", false)},
		{"Secure Boot unknown", refused, "oemboot is not true", without("oemboot")},
		{"Secure Boot as text", refused, "claims about the device", set("oemboot", "true")},
		{"failed verdict", refused, `ear_status is "contraindicated"`, status("contraindicated")},
		{"verdict with a warning", refused, `ear_status is "warning"`, status("warning")},
		{"no verdict", refused, `ear_status is ""`, without("submods")},
		{"verdict in the old spelling", refused, `ear_status is ""`, set("submods", object{"platform": object{"ear.status": "affirming"}})},
		{"verdict for another part", refused, `ear_status is ""`, set("submods", object{"other": object{"ear_status": "affirming"}})},
		{"too old", stale, "older than 30m", set("iat", 1_800_000_000-30*60-1)},
		{"too old and wrong", refused, "oemboot", func(c object) { c["iat"], c["oemboot"] = 1_800_000_000-30*60-1, false }},
	}
	decided := 0
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, policyText) })
			for _, c := range []*call{f.pop(), f.combined()} {
				for claim, value := range device() {
					c.attestation.claims[claim] = value
				}
				tc.change(c.attestation.claims)
				w := f.send(c)
				if tc.code == "" {
					f.wantToken(w, map[bool]string{true: "Bearer", false: "DPoP"}[c.pop != nil])
				} else {
					f.wantRefusal(w, http.StatusBadRequest, tc.code, "policy", tc.reason)
				}
			}
			if !t.Failed() {
				decided++
			}
		})
	}
	if decided != 35 {
		t.Errorf("%d of %d cases decided rightly, want 35", decided, len(cases))
	}
}

// TestPolicyLast: who has not authenticated learns nothing about the policy.
func TestPolicyLast(t *testing.T) {
	f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, policyText) })
	c := f.pop() // without any claims about the device
	c.pop.key = f.dpop
	f.wantRefusal(f.send(c), http.StatusBadRequest, "invalid_client_attestation", "7.2(4)", "signature")
}

// TestPolicyRefresh: a refresh token gets no further than a grant.
func TestPolicyRefresh(t *testing.T) {
	f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, `{"require_oemboot": true}`) })
	c := f.pop()
	c.attestation.claims["oemboot"] = true
	refresh, _ := f.wantToken(f.send(c), "Bearer")["refresh_token"].(string)
	c = f.pop()
	c.form.Set("grant_type", "refresh_token")
	c.form.Set("refresh_token", refresh)
	c.attestation.claims["oemboot"] = false
	f.wantRefusal(f.send(c), http.StatusBadRequest, "invalid_client_attestation", "policy", "oemboot")
}

// TestNoPolicy: claims about the device are then ignored, whatever they look like.
func TestNoPolicy(t *testing.T) {
	f := newFixture(t, nil)
	c := f.pop()
	c.attestation.claims["hwmodel"], c.attestation.claims["swversion"], c.attestation.claims["submods"] = 1, true, "x"
	f.wantToken(f.send(c), "Bearer")
}

// TestPolicyRules: what a policy leaves out is not looked at.
func TestPolicyRules(t *testing.T) {
	rules := map[string]any{}
	if err := json.Unmarshal([]byte(policyText), &rules); err != nil {
		t.Fatal(err)
	}
	for name, value := range rules {
		text, err := json.Marshal(object{name: value})
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, string(text)) })
		f.now = f.now.Add(45 * time.Minute)
		c := f.pop()
		c.attestation.claims["iat"] = f.now.Add(-40 * time.Minute).Unix()
		code := "invalid_client_attestation"
		if name == "max_age" {
			code = "use_fresh_attestation"
		}
		f.wantRefusal(f.send(c), http.StatusBadRequest, code, "policy", "")

		c = f.pop()
		for claim, value := range device() {
			c.attestation.claims[claim] = value
		}
		f.wantToken(f.send(c), "Bearer")
	}
	if len(rules) != 5 {
		t.Errorf("%d rules, want 5", len(rules))
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	cases := map[string]string{
		``:                                      "EOF",
		`{}`:                                    "no rules",
		`[]`:                                    "cannot unmarshal",
		`{"require_secure_boot": true}`:         "unknown field",
		`{"Require_OEMBoot": true}`:             "wrong case",
		`{"max_age":"1h","max_age":"2h"}`:       "duplicate",
		`{"max_age": 60}`:                       "cannot unmarshal",
		`{"max_age": "an hour"}`:                "max_age",
		`{"max_age": "-1h"}`:                    "not positive",
		`{"max_age": "0s"}`:                     "not positive",
		`{"models": [{"oemid": 1}]}`:            "without hwmodel",
		`{"models": [{"hwmodel": "X", "a":1}]}`: "unknown field",
		`{"models": [{"hwmodel": "X", "oemid": true}]}`:                 "neither",
		`{"models": [{"hwmodel": "X"}, {"hwmodel": "Y", "oemid": -1}]}`: `line 1: models[1].oemid: "Y": oemid is not a Private`,
		`{"models": [{"hwmodel": "X", "oemid": 1.5}]}`:                  "oemid is not a Private",
		`{"models": [{"hwmodel": "X", "oemid": "zz"}]}`:                 "oemid is not 16 or 3 bytes",
		`{"models": [{"hwmodel": "` + strings.Repeat("x", 63) + `"}]}`:  "hwmodel has not 1 to 32 bytes",
		`{"minimum_versions": {"": "1"}}`:                               "without a swname",
		`{"minimum_versions": {"os": "1.x"}}`:                           `version "1.x"`,
		`{"minimum_versions": {"os": ""}}`:                              `version ""`,
		`{"minimum_versions": ["2.0"]}`:                                 "cannot unmarshal",
		`{"ear_status": ["good"]}`:                                      `ear_status "good"`,
		`{"require_oemboot": true} {}`:                                  "after top-level value",
	}
	for text, want := range cases {
		policy, err := authserver.ParsePolicy([]byte(text))
		if err == nil || policy != nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "authserver: policy: ") {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
	if len(cases) != 23 {
		t.Errorf("%d cases, want 23", len(cases))
	}

	name := filepath.Join(t.TempDir(), "policy.json")
	if _, err := authserver.LoadPolicy(name); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, []byte(`{"x":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authserver.LoadPolicy(name); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("bad file: %v", err)
	}
	if err := os.WriteFile(name, []byte(policyText), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := authserver.LoadPolicy(name); err != nil {
		t.Errorf("good file: %v", err)
	}
}

// TestEmptyLists: a list without members lets nobody pass, and is no oversight.
func TestEmptyLists(t *testing.T) {
	for _, text := range []string{`{"models": []}`, `{"minimum_versions": {}}`, `{"ear_status": []}`} {
		f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, text) })
		c := f.pop()
		for claim, value := range device() {
			c.attestation.claims[claim] = value
		}
		f.wantRefusal(f.send(c), http.StatusBadRequest, "invalid_client_attestation", "policy", "")
	}
}

// TestEndorsementPolicy: who vouches for the TPM may decide.
func TestEndorsementPolicy(t *testing.T) {
	for claim, want := range map[any]bool{"certificate": true, "registry": false, nil: false, "": false} {
		f := newFixture(t, func(cfg *authserver.Config) { cfg.Policy = parsePolicy(t, `{"tpm_endorsement": ["certificate"]}`) })
		c := f.pop()
		for name, value := range device() {
			c.attestation.claims[name] = value
		}
		if claim != nil {
			c.attestation.claims["tpm_endorsement"] = claim
		}
		if w := f.send(c); want {
			f.wantToken(w, "Bearer")
		} else {
			f.wantRefusal(w, http.StatusBadRequest, "invalid_client_attestation", "policy", "tpm_endorsement is ")
		}
	}
	if _, err := authserver.ParsePolicy([]byte("{\n\"tpm_endorsement\": [\"maker\"]}")); err == nil || !strings.Contains(err.Error(), "line 2: tpm_endorsement[0]: ") {
		t.Error(err)
	}
}
