// SPDX-License-Identifier: Apache-2.0

package clienttest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/clienttest"
)

// An app is a Client of some services, with x/oauth2 over it.
type app struct {
	*clienttest.Services
	t      *testing.T
	client *client.Client
	config oauth2.Config
	ctx    context.Context // of x/oauth2
}

func newApp(t *testing.T, s *clienttest.Services, edits ...func(*client.Config)) *app {
	t.Helper()
	cfg := s.ClientConfig()
	for _, edit := range edits {
		edit(&cfg)
	}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	endpoint, err := c.Endpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &app{s, t, c, oauth2.Config{
		ClientID: cfg.ClientID, Endpoint: endpoint, RedirectURL: "http://127.0.0.1:1/back", Scopes: []string{"read"},
	}, context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTPClient())}
}

func bound(cfg *client.Config) { cfg.DPoP = client.DPoPInstanceKey }

// browse is the user's browser. It returns what the app gets back.
func (a *app) browse(authURL string) url.Values {
	a.t.Helper()
	browser := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.Get(authURL)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil || !strings.HasPrefix(back.String(), a.config.RedirectURL) {
		a.t.Fatalf("status %d, to %v: %v", resp.StatusCode, back, err)
	}
	return back.Query()
}

// push pushes an authorization request and returns the URL for the browser.
func (a *app) push(form url.Values) (authURL string) {
	a.t.Helper()
	metadata, err := a.client.Metadata(a.ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	var pushed struct {
		URI string `json:"request_uri"`
	}
	a.post(metadata.PushedAuthorizationRequestEndpoint, form, http.StatusCreated, &pushed)
	return a.config.Endpoint.AuthURL + "?" + url.Values{"client_id": {a.config.ClientID}, "request_uri": {pushed.URI}}.Encode()
}

func (a *app) post(to string, form url.Values, status int, answer any) {
	a.t.Helper()
	resp, err := a.client.HTTPClient().PostForm(to, form)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil || resp.StatusCode != status {
		a.t.Fatalf("%s: status %d, want %d: %v", to, resp.StatusCode, status, err)
	}
}

// call calls the resource with a token, by the HTTP client of the Client.
func (a *app) call(token *oauth2.Token) (status int) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.Resource.URL+"/x", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	token.SetAuthHeader(req)
	resp, err := a.client.HTTPClient().Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (a *app) wantCode(err error, code string) {
	a.t.Helper()
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.ErrorCode != code {
		a.t.Errorf("got %v, want %s", err, code)
	}
}

// codeGrant gets a token by an authorization code.
func (a *app) codeGrant(push bool, options ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
	a.t.Helper()
	verifier := oauth2.GenerateVerifier()
	authURL := a.config.AuthCodeURL("the state", append(options, oauth2.S256ChallengeOption(verifier))...)
	if push {
		u, err := url.Parse(authURL)
		if err != nil {
			a.t.Fatal(err)
		}
		authURL = a.push(u.Query())
	}
	back := a.browse(authURL)
	if back.Get("state") != "the state" {
		a.t.Errorf("the app got %v back", back)
	}
	return a.config.Exchange(a.ctx, back.Get("code"), oauth2.VerifierOption(verifier))
}

func (a *app) introspect(token string) (answer map[string]any) {
	a.t.Helper()
	metadata, err := a.client.Metadata(a.ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	a.post(metadata.IntrospectionEndpoint, url.Values{"token": {token}}, http.StatusOK, &answer)
	return answer
}
