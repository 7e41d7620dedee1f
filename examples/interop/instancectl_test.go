// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// instancectl is the tool, and an instance of it that attests itself.
type instancectl struct {
	program string
	self    string // file for -self
	jwk     jose.JSONWebKey
}

func newInstancectl(t *testing.T) instancectl {
	t.Helper()
	i := instancectl{program: build(t, "instancectl")}
	i.self, i.jwk = newSelf(t)
	return i
}

// newSelf returns a file for -self, and the key in it that the server has to trust.
func newSelf(t *testing.T) (file string, public jose.JSONWebKey) {
	t.Helper()
	jwk := newSigningKey(t, "self")
	private, err := jwk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "self.jwk")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, jwk.Public()
}

// finding is a line of doctor -json.
type finding struct{ Check, Status, Found, Advice string }

// doctor returns what the doctor finds that does not work.
func (i instancectl) doctor(t *testing.T, args ...string) (failed []finding) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), i.program, append([]string{"doctor", "-json"}, args...)...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	n := 0
	for decoder.More() {
		var f finding
		if err := decoder.Decode(&f); err != nil {
			t.Fatal(err)
		}
		if n++; f.Status == "fail" {
			failed = append(failed, f)
		}
	}
	if (err == nil) != (len(failed) == 0) || n < 5 {
		t.Errorf("%d checks, %d failed: %v", n, len(failed), err)
	}
	return failed
}

// TestInstancectlDoctor: what would go wrong at each version of the server is found before a
// token is asked for, and what is right passes.
func TestInstancectlDoctor(t *testing.T) {
	i := newInstancectl(t)
	stranger, _ := newSelf(t)
	for _, version := range []string{current, "9.12.2", "9.8.6"} {
		t.Run(version, func(t *testing.T) {
			p := startProvider(t, version, i.jwk)
			fits := "draft-12"
			if version == "9.8.6" {
				fits = "oid4vci-1"
			}
			for name, tt := range map[string]struct {
				args  []string
				check string // that fails; "": none
				words []string
			}{
				"all is well":            {[]string{"-profile", fits, "-self", i.self}, "", nil},
				"grant by user":          {[]string{"-profile", fits, "-self", i.self, "-grant", "device_code"}, "", nil},
				"client unknown":         {[]string{"-profile", fits, "-self", i.self, "-client-id", "nobody"}, "client authentication", []string{"has a client", "nobody"}},
				"attester not trusted":   {[]string{"-profile", fits, "-self", stranger}, "client authentication", []string{"trusts the attester's key"}},
				"issuer with a slash":    {[]string{"-profile", fits, "-self", i.self, "-issuer", p.Issuer + "/"}, "issuer's metadata", []string{"-issuer " + p.Issuer}},
				"issuer of a realm":      {[]string{"-profile", fits, "-self", i.self, "-issuer", p.Issuer + "/realms/x"}, "issuer's metadata", []string{"there is none"}},
				"attester is the server": {[]string{"-profile", fits, "-attester", p.Issuer}, "attester", []string{"is an authorization server"}},
			} {
				t.Run(name, func(t *testing.T) {
					failed := i.doctor(t, append([]string{"-issuer", p.Issuer, "-client-id", "abca-client"}, tt.args...)...)
					expect(t, failed, tt.check, tt.words)
				})
			}
			switch version {
			case "9.8.6":
				expect(t, i.doctor(t, "-issuer", p.Issuer, "-client-id", "abca-client", "-self", i.self), "client authentication", []string{"use -profile oid4vci-1"})
				expect(t, i.doctor(t, "-issuer", p.Issuer, "-client-id", "abca-client", "-self", i.self, "-method", "dpop"), "authentication method", []string{"-method pop"})
			case "9.12.2":
				expect(t, i.doctor(t, "-issuer", p.Issuer, "-client-id", "abca-client", "-self", i.self, "-method", "dpop"), "authentication method", []string{"-method pop"})
			}
			big := []string{"-issuer", p.Issuer, "-client-id", "abca-client", "-self", i.self, "-profile", fits, "-alg", "ES384"}
			switch version {
			case "9.8.6": // which lists no algorithms of PoP JWTs
				expect(t, i.doctor(t, big...), "client authentication", []string{"-alg ES256"})
			case "9.12.2":
				expect(t, i.doctor(t, big...), "proof algorithm", []string{"-alg ES256"})
			case current:
				expect(t, i.doctor(t, "-issuer", p.Issuer, "-client-id", "abca-dpop-client", "-self", i.self), "client authentication", []string{"use -method dpop"})
				expect(t, i.doctor(t, "-issuer", p.Issuer, "-client-id", "abca-dpop-client", "-self", i.self, "-method", "dpop"), "", nil)
			}
			if n := p.Requests(t)[token]; n != 0 {
				t.Errorf("%d token requests", n)
			}
		})
	}
}

func expect(t *testing.T, failed []finding, check string, words []string) {
	t.Helper()
	switch {
	case check == "" && len(failed) > 0:
		t.Errorf("found %+v where all is well", failed)
	case check == "":
	case len(failed) != 1 || failed[0].Check != check:
		t.Errorf("found %+v, want %q", failed, check)
	default:
		for _, word := range words {
			if !strings.Contains(failed[0].Found+" "+failed[0].Advice, word) {
				t.Errorf("%+v does not say %q", failed[0], word)
			}
		}
	}
}

// TestInstancectlDeviceGrant: a user authorizes the tool with a browser.
func TestInstancectlDeviceGrant(t *testing.T) {
	i := newInstancectl(t)
	p := startProvider(t, current, i.jwk)
	cmd := exec.CommandContext(t.Context(), i.program, "token", "-store", "soft", "-issuer", p.Issuer, "-client-id", "abca-client", "-self", i.self,
		"-grant", "device_code", "-scope", "openid", "-json")
	cmd.WaitDelay = 5 * time.Second
	var stdout strings.Builder
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	place := regexp.MustCompile(`open (\S+)`)
	code := regexp.MustCompile(`enter the code (\S+)`)
	var at string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said = append(said, lines.Text())
		if m := place.FindStringSubmatch(lines.Text()); m != nil {
			at = m[1]
		}
		if m := code.FindStringSubmatch(lines.Text()); m != nil {
			authorize(t, at+"?user_code="+url.QueryEscape(m[1]))
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(stdout.String(), `"token_type":"Bearer"`) {
		t.Errorf("instancectl: %v, %s\n%s", err, stdout.String(), strings.Join(said, "\n"))
	}
}
