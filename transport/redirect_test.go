// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

var redirects = []int{301, 302, 303, 307, 308}

// TestRedirectsLeadNowhere: decision 7, contract line 10, test 3. The trap fails
// the test for each header field and each byte of a body that reaches it.
func TestRedirectsLeadNowhere(t *testing.T) {
	for _, status := range redirects {
		t.Run(fmt.Sprintf("http.Client/%d", status), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true, Redirect: status})
			client := &http.Client{Transport: f.Transport}
			resp, err := client.Do(f.request(t.Context()))
			if !errors.Is(err, transport.ErrRedirect) {
				t.Errorf("%v, %v, want ErrRedirect", resp, err)
			}
			f.counts(1, 0)
			if n := f.server.Trap.Visits(); n != 0 {
				t.Errorf("%d requests have followed", n)
			}
		})
		t.Run(fmt.Sprintf("bare/%d", status), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true, Redirect: status})
			f.token(status)
			f.counts(1, 0)
			if n := f.server.Trap.Visits(); n != 0 {
				t.Errorf("%d requests have followed", n)
			}
		})
		t.Run(fmt.Sprintf("oauth2/%d", status), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true, Redirect: status})
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: f.Transport})
			_, err := f.credentials().Token(ctx)
			if !errors.Is(err, transport.ErrRedirect) {
				t.Errorf("%v, want ErrRedirect", err)
			}
			f.counts(1, 0)
			if n := f.server.Trap.Visits(); n != 0 {
				t.Errorf("%d requests have followed", n)
			}
		})
		t.Run(fmt.Sprintf("challenge endpoint/%d", status), func(t *testing.T) {
			f := newFixture(t, policy{Redirect: status})
			f.fail(f.request(t.Context()))
			f.counts(0, 1)
			if n := f.server.Trap.Visits(); n != 0 {
				t.Errorf("%d requests have followed", n)
			}
		})
	}
}

func (f *fixture) credentials() *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:  f.server.ClientID,
		TokenURL:  f.server.Endpoint(transporttest.Token),
		AuthStyle: oauth2.AuthStyleInParams,
	}
}

// TestOAuth2 is how x/oauth2 is used, and that it works.
func TestOAuth2(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true})
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: f.Transport})
	token, err := f.credentials().Token(ctx)
	if err != nil || token.AccessToken == "" {
		t.Fatal(token, err)
	}
	f.counts(2, 0)

	f.server.Set(func(p *policy) { p.UnknownClient = true })
	_, err = f.credentials().Token(ctx)
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.ErrorCode != "invalid_client" {
		t.Errorf("%v, want x/oauth2's own error with the server's code", err)
	}
}

// TestRedirectsToTheIssuer: a foreign server cannot have a request of its own
// authenticated.
func TestRedirectsToTheIssuer(t *testing.T) {
	for _, status := range redirects {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFixture(t, policy{})
			foreign := httptest.NewServer(http.RedirectHandler(f.server.Endpoint(transporttest.Token), status))
			defer foreign.Close()
			client := &http.Client{Transport: f.Transport}
			resp, err := client.Do(newRequest(t, t.Context(), foreign.URL))
			if err == nil {
				resp.Body.Close() // a 302 makes it a GET, which passes through
			} else if !errors.Is(err, transport.ErrRedirect) {
				t.Errorf("error %v", err)
			}
			if (status == 307 || status == 308) != (err != nil) {
				t.Errorf("error %v", err)
			}
			for _, r := range f.server.Requests(transporttest.Token) {
				if r.Attestation() != "" || r.PoP != nil {
					t.Errorf("%s was authenticated", r.Method)
				}
			}
		})
	}
}

// TestForeignRedirectsPass: what is not ours is not our affair.
func TestForeignRedirectsPass(t *testing.T) {
	f := newFixture(t, policy{})
	trap := transporttest.NewTrap(t)
	foreign := httptest.NewServer(http.RedirectHandler(trap.URL, http.StatusFound))
	defer foreign.Close()
	client := &http.Client{Transport: f.Transport}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, foreign.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["oauth-client-attestation"] = []string{"the caller's own"} // net/http would carry it along
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := trap.Visits(); n != 1 {
		t.Errorf("%d visits", n)
	}
}

// TestAuthenticatedRequestIsRefusedBelowAMiddleware: the redirect is found out
// also if somebody between http.Client and us has cloned the request.
func TestAuthenticatedRequestIsRefusedBelowAMiddleware(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true, Redirect: http.StatusTemporaryRedirect})
	client := &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		return f.RoundTrip(req.Clone(req.Context()))
	})}
	if _, err := client.Do(f.request(t.Context())); !errors.Is(err, transport.ErrRedirect) {
		t.Errorf("error %v", err)
	}
	if n := f.server.Trap.Visits(); n != 0 {
		t.Errorf("%d requests have followed", n)
	}
}
