// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// attester attests instances, and the server trusts its public key.
type attester struct {
	client.SelfAttester
	jwk jose.JSONWebKey
}

func newAttester(t *testing.T) attester {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keystore.FromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return attester{client.SelfAttester{Key: key}, jose.JSONWebKey{Key: private.Public()}}
}

func openTPM(t *testing.T, device tpmtest.Device) keystore.Store {
	t.Helper()
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: device.Dial, Dir: filepath.Join(t.TempDir(), "keys")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func newClient(t *testing.T, p *provider, a attester, store keystore.Store) *client.Client {
	t.Helper()
	return configured(t, p, a, client.Config{ClientID: "abca-client", Store: store})
}

// configured returns a client of the provider that a attests.
func configured(t *testing.T, p *provider, a attester, config client.Config) *client.Client {
	t.Helper()
	config.Issuer, config.Attester = p.Issuer, a.SelfAttester
	c, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// check compares the requests that the server has received with want.
func (p *provider) check(t *testing.T, want map[string]int) {
	t.Helper()
	if got := p.Requests(t); !maps.Equal(got, want) {
		t.Errorf("the server received %v, want %v", got, want)
	}
}

// post sends a form and decodes the JSON that comes back.
func post(t *testing.T, hc *http.Client, to string, status int, form url.Values, into any) {
	t.Helper()
	resp, err := hc.PostForm(to, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Fatalf("POST %s: %s %s", to, resp.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}

// newBrowser returns a browser that stops where the app takes over.
func newBrowser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == "/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// consent is the user in the browser, who logs in and agrees. It returns the
// authorization code.
func consent(t *testing.T, authorize string) string {
	t.Helper()
	browser := newBrowser(t)
	resp, err := browser.Get(authorize)
	for range 3 {
		if err != nil {
			t.Fatal(err)
		}
		html, readErr := io.ReadAll(resp.Body)
		resp.Body.Close()
		if readErr != nil {
			t.Fatal(readErr)
		}
		if to := resp.Header.Get("Location"); to != "" {
			if code := query(t, to).Get("code"); code != "" {
				return code
			}
			t.Fatalf("no code: %s", to)
		}
		form := url.Values{"prompt": {"consent"}}
		if strings.Contains(string(html), `value="login"`) {
			form = url.Values{"prompt": {"login"}, "login": {"user"}, "password": {"any"}}
		}
		resp, err = browser.PostForm(resp.Request.URL.String(), form)
	}
	t.Fatal("the user is asked again and again")
	return ""
}

func query(t *testing.T, rawURL string) url.Values {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// newSigningKey returns an attester's private JWK.
func newSigningKey(t *testing.T, kid string) jose.JSONWebKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: private, KeyID: kid}
}
