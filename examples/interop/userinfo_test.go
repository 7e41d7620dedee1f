// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	referenceattester "github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// The server's own userinfo is a resource that it does not know by its URL: it answers
// invalid_target where that is asked for. It asks for no attestation either.
func TestOIDCProviderUserinfo(t *testing.T) {
	for name, dpop := range map[string]client.DPoP{"bearer": client.DPoPOff, "DPoP": client.DPoPOwnKey} {
		t.Run(name, func(t *testing.T) {
			attester := newAttester(t)
			p := startProvider(t, current, attester.jwk)
			c := configured(t, p, attester, client.Config{
				ClientID: "abca-client", Store: softkey.New(), DPoP: dpop,
				Resources: []client.Resource{{Identifier: p.Issuer + "/me"}},
			})
			if _, err := c.Token(t.Context(), "read"); err != nil {
				t.Errorf("Token: %v", err)
			}
			if _, err := c.TokenFor(t.Context(), p.Issuer+"/me", "read"); err != nil {
				t.Errorf("TokenFor: %v", err)
			}
			tok := openIDToken(t, p, c)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Issuer+"/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			tok.SetAuthHeader(req)
			resp, err := c.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var info struct{ Sub string }
			if err := json.NewDecoder(resp.Body).Decode(&info); err != nil || resp.StatusCode != http.StatusOK || info.Sub != "user" {
				t.Errorf("userinfo: %s %+v %v", resp.Status, info, err)
			}
		})
	}
}

// openIDToken gets a token with scope openid and a refresh token.
func openIDToken(t *testing.T, p *provider, c *client.Client) *oauth2.Token {
	t.Helper()
	config := oauth2.Config{ClientID: "abca-client", RedirectURL: "http://127.0.0.1/callback", Scopes: []string{"openid"}}
	var err error
	if config.Endpoint, err = c.Endpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	verifier := oauth2.GenerateVerifier()
	code := consent(t, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())
	tok, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// instancectl calls userinfo with a token that it gets by a refresh token.
func TestOIDCProviderUserinfoByInstancectl(t *testing.T) {
	jwk := newSigningKey(t, "self")
	key, err := keystore.FromSigner(jwk.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	attester := attester{client.SelfAttester{Key: key}, jwk.Public()}
	p := startProvider(t, current, attester.jwk)
	private, err := jwk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	self, keys := filepath.Join(t.TempDir(), "self.jwk"), t.TempDir()
	if err := os.WriteFile(self, private, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := softkey.OpenDir(keys)
	if err != nil {
		t.Fatal(err)
	}
	c := configured(t, p, attester, client.Config{ClientID: "abca-client", Store: store})
	file := filepath.Join(t.TempDir(), "refresh")
	if err := os.WriteFile(file, []byte(openIDToken(t, p, c).RefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), build(t, "instancectl"), "token", "-store", "soft", "-keys", keys,
		"-issuer", p.Issuer, "-client-id", "abca-client", "-self", self, "-grant", "refresh_token", "-refresh", file,
		"-resource", p.Issuer+"/me", "-json").CombinedOutput()
	if err != nil || strings.Contains(string(out), "error") {
		t.Errorf("instancectl: %v\n%s", err, out)
	}
	if n := p.Requests(t)["GET /me"]; n != 1 {
		t.Errorf("%d calls of userinfo, want 1", n)
	}
}

// The device calls userinfo with a token that a user has authorized.
func TestOIDCProviderUserinfoByDevice(t *testing.T) {
	key := newSigningKey(t, "attester")
	server := httptest.NewUnstartedServer(nil)
	a, err := referenceattester.New(referenceattester.Config{URL: "http://" + server.Listener.Addr().String(), Clients: []string{"abca-client"}, Key: key, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = a
	server.Start()
	defer server.Close()
	p := startProvider(t, current, key.Public())

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, build(t, "device"), "-store", "soft", "-state", t.TempDir(), "-issuer", p.Issuer,
		"-client-id", "abca-client", "-attester", server.URL, "-resource", p.Issuer+"/me", "-scope", "openid", "-grant", "device_code")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	called := false
	var log []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		log = append(log, lines.Text())
		if m := regexp.MustCompile(`at=(\S+) with_code=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			authorize(t, m[1]+"?user_code="+url.QueryEscape(m[2]))
		}
		if strings.Contains(lines.Text(), `msg="calls work"`) {
			called = true
			cancel()
		}
	}
	if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) || !called {
		t.Errorf("device: %v, called userinfo: %t\n%s", err, called, strings.Join(log, "\n"))
	}
}

var (
	formAction = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)
	formInput  = regexp.MustCompile(`<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"`)
)

// authorize is the user who goes where the device says and agrees to all.
func authorize(t *testing.T, place string) {
	t.Helper()
	browser := newBrowser(t)
	resp, err := browser.Get(place)
	for range 6 {
		if err != nil {
			t.Fatal(err)
		}
		html, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		action := formAction.FindStringSubmatch(string(html))
		if action == nil {
			return // it is done, or the device will say that it is not
		}
		form := url.Values{"login": {"user"}, "password": {"any"}, "confirm": {"yes"}}
		for _, input := range formInput.FindAllStringSubmatch(string(html), -1) {
			form.Set(input[1], input[2])
		}
		form.Del("abort")
		to, err := resp.Request.URL.Parse(action[1])
		if err != nil {
			t.Fatal(err)
		}
		if resp, err = browser.PostForm(to.String(), form); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the user is asked again and again")
}

// build builds a program of examples/.
func build(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, "../"+name).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}
