// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
)

// actLine is any line of quickstart -story firmware -json.
type actLine struct {
	played
	OK            *bool
	Store         string
	KeyThumbprint string `json:"key_thumbprint"`
	Error         string
}

func TestFirmwareJSON(t *testing.T) {
	exampletest.NeedSimulator(t)
	for _, args := range [][]string{{"-story", "firmware", "-json"}, {"-story", "firmware", "-json", "-store", "simulator"}} {
		status, stdout, stderr := quickstart(t, args...)
		if status != 0 || stderr != "" {
			t.Fatalf("status %d, stderr %q, stdout %s", status, stderr, stdout)
		}
		want := []struct{ expect, got, refused, reason, hardware, version, boot, verdict, attestations string }{
			{"refused", "invalid_client_attestation", "invalid_client_attestation", "version 1.0", "Gateway X1", "1.0", "true", "warning", "1"},
			{"token", "token", "", "", "Gateway X1", "2.0", "true", "affirming", "1"},
			{"refused", "invalid_client_attestation", "invalid_client_attestation", "oemboot", "Gateway X1", "2.0", "false", "warning", "1"},
			{"refused", "invalid_client_attestation", "invalid_client_attestation", "contraindicated", "Gateway X1", "2.1", "true", "contraindicated", "1"},
			{"refused", "invalid_client_attestation", "invalid_client_attestation", "Gateway X0", "Gateway X0", "2.0", "true", "affirming", "1"},
			{"token", "token", "use_fresh_attestation", "older than 1h", "Gateway X1", "2.0", "true", "affirming", "2"},
		}
		lines := exampletest.Lines[actLine](t, stdout)
		if len(lines) != len(want)+1 {
			t.Fatalf("%d lines: %s", len(lines), stdout)
		}
		for i, w := range want {
			got := lines[i]
			if got.Story != "firmware" || got.Act != i+1 || !got.AsTold || got.Expect != w.expect || got.Got != w.got || got.Refused != w.refused ||
				!strings.Contains(got.Reason, w.reason) || (got.Reason == "") != (w.reason == "") || fmt.Sprint(got.Attestations) != w.attestations {
				t.Errorf("act %d: %+v", i+1, got.played)
			}
			said := attested{w.hardware, "gateway-os", w.version, w.boot == "true", w.verdict}
			if got.Attested != said {
				t.Errorf("act %d: attested %+v, not %+v", i+1, got.Attested, said)
			}
		}
		last := lines[len(want)]
		if len(last.KeyThumbprint) != 43 || !strings.HasSuffix(stdout, `{"ok":true,"store":"simulator","key_thumbprint":"`+last.KeyThumbprint+`"}`+"\n") {
			t.Errorf("last line %+v", last)
		}
	}
}

func TestFirmwareText(t *testing.T) {
	exampletest.NeedSimulator(t)
	status, stdout, stderr := quickstart(t, "-story", "firmware")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, stderr %q", status, stderr)
	}
	rest := stdout
	for _, want := range []string{
		`policy: {`, `"minimum_versions"`, "\n1. ", "refused: invalid_client_attestation", "2.0 is the least", "\n2. ", "    a token\n",
		"\n3. ", "oemboot", "\n4. ", "recalled", "\n5. ", "Gateway X0", "\n6. ", "use_fresh_attestation", "tries again", "    a token\n",
		"\nOK: all 6 acts went as told",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("no %q in its place in:\n%s", want, stdout)
		}
		rest = after
	}
}

// A server that lets everybody in spoils the story at once, and so does one that
// refuses for another reason.
func TestFirmwareNotAsTold(t *testing.T) {
	exampletest.NeedSimulator(t)
	for name, tt := range map[string]struct {
		policy string
		acts   int
	}{
		"everybody":    {`{"max_age": "1h"}`, 1},
		"nobody":       {`{"models": [{"hwmodel": "Gateway X9"}]}`, 1},
		"no boot rule": {`{"minimum_versions": {"gateway-os": "2.0"}, "max_age": "1h"}`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			defer func(old []byte) { policyFile = old }(policyFile)
			policyFile = []byte(tt.policy)
			status, stdout, stderr := quickstart(t, "-story", "firmware", "-json")
			lines := exampletest.Lines[actLine](t, stdout)
			if status != 1 || len(lines) != tt.acts+1 || !strings.Contains(stderr, "did not go as told") {
				t.Fatalf("status %d, stderr %q, stdout %s", status, stderr, stdout)
			}
			for i, line := range lines[:tt.acts] {
				if line.AsTold != (i < tt.acts-1) {
					t.Errorf("act %d: as told: %t", i+1, line.AsTold)
				}
			}
			if last := lines[tt.acts]; last.OK == nil || *last.OK || last.Error != fmt.Sprintf("act %d did not go as told", tt.acts) {
				t.Errorf("last line %+v", last)
			}
		})
	}
}

func TestFirmwareBrokenOutput(t *testing.T) {
	exampletest.NeedSimulator(t)
	var stderr strings.Builder
	if status := run(t.Context(), []string{"-story", "firmware"}, brokenWriter{}, &stderr); status != 1 {
		t.Errorf("status %d", status)
	}
}

// An act goes as told only if all of it does.
func TestCompare(t *testing.T) {
	want := act{expect: refused, refused: invalid, reason: "r", attestations: 1}
	renewed := act{expect: token, refused: notFresh, reason: "old", attestations: 2}
	plain := act{expect: token, attestations: 1}
	for name, tt := range map[string]struct {
		act          act
		got          string
		attestations int
		refusals     []refusal
		asTold       bool
	}{
		"refused":                {want, invalid, 1, []refusal{{invalid, "r"}}, true},
		"refused after a retry":  {want, invalid, 1, []refusal{{noChallenge, "c"}, {invalid, "r"}}, true},
		"another reason":         {want, invalid, 1, []refusal{{invalid, "s"}}, false},
		"another code":           {want, notFresh, 1, []refusal{{notFresh, "r"}}, false},
		"told the client less":   {want, "invalid_client", 1, []refusal{{invalid, "r"}}, false},
		"token after all":        {want, token, 1, []refusal{{invalid, "r"}}, false},
		"refused twice":          {want, invalid, 1, []refusal{{invalid, "r"}, {invalid, "r"}}, false},
		"attested twice":         {want, invalid, 2, []refusal{{invalid, "r"}}, false},
		"token":                  {plain, token, 1, nil, true},
		"token, but refused":     {plain, token, 1, []refusal{{notFresh, "old"}}, false},
		"renewed":                {renewed, token, 2, []refusal{{notFresh, "old"}}, true},
		"not renewed":            {renewed, token, 1, nil, false},
		"renewed, no token":      {renewed, notFresh, 2, []refusal{{notFresh, "old"}}, false},
		"not attested this time": {plain, token, 0, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := played{Got: tt.got, Attestations: tt.attestations}
			if p.compare(tt.act, tt.refusals); p.AsTold != tt.asTold {
				t.Errorf("%+v", p)
			}
			if shown := strings.Contains(p.String(), "NOT AS TOLD"); shown == tt.asTold {
				t.Errorf("shown as\n%s", p)
			}
		})
	}
}
