// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
)

// TestOrigins: endpoints on another origin than the issuer's are used, unless
// the configuration pins the origins.
func TestOrigins(t *testing.T) {
	const document = `{"issuer":"https://as.example.com","token_endpoint":"https://login.example.net:8443/token"}`
	for name, test := range map[string]struct {
		origins []string
		refused bool
	}{
		"any":                 {nil, false},
		"the endpoint's":      {[]string{"https://LOGIN.example.net:8443"}, false},
		"several":             {[]string{"https://as.example.com", "https://login.example.net:8443"}, false},
		"only the issuer's":   {[]string{"https://as.example.com"}, true},
		"with another port":   {[]string{"https://login.example.net"}, true},
		"with another scheme": {[]string{"http://127.0.0.1:8443"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			c, err := client.New(t.Context(), client.Config{
				Issuer:   "https://as.example.com",
				ClientID: "client",
				Store:    softkey.New(),
				Attester: client.HTTPAttester{URL: "https://attester.example.com"},
				Origins:  test.origins,
				Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
					requests++
					return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(document))}, nil
				}),
			})
			if err != nil {
				t.Fatal(err)
			}
			endpoint, err := c.Endpoint(t.Context())
			if refused := errors.Is(err, client.ErrMetadata); refused != test.refused {
				t.Fatalf("refused: %v, want %v: %v", refused, test.refused, err)
			}
			if err == nil && endpoint.TokenURL != "https://login.example.net:8443/token" {
				t.Errorf("token endpoint %s", endpoint.TokenURL)
			}
			if requests != 1 {
				t.Errorf("%d requests, want 1", requests)
			}
		})
	}
}

// TestNewRefusesOrigins: what is no origin would match nothing, unnoticed.
func TestNewRefusesOrigins(t *testing.T) {
	for _, origin := range []string{"", "as.example.com", "https://as.example.com/", "https://as.example.com/path", "http://as.example.com"} {
		_, err := client.New(t.Context(), client.Config{
			Issuer:   "https://as.example.com",
			ClientID: "client",
			Store:    softkey.New(),
			Attester: client.HTTPAttester{URL: "https://attester.example.com"},
			Origins:  []string{origin},
		})
		if err == nil || !strings.Contains(err.Error(), "Origins") {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
