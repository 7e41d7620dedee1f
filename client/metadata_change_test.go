// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
)

const (
	oldToken   = issuerURL + "/token"
	movedToken = "https://login.example.net/token"
	target     = "https://elsewhere.example.com/take"
	changing   = "https://rs.example.com/api"
)

// A movingServer is an authorization server whose endpoints move, and a resource.
type movingServer struct {
	*discoverer
	carried []string // the places that got a header field of ours, in order
	bare    []string // the places that got a POST without
}

func newMovingServer(t *testing.T, edits ...func(*client.Config)) *movingServer {
	m := new(movingServer)
	m.discoverer = newDiscoverer(t, issuerURL, append([]func(*client.Config){func(cfg *client.Config) {
		base := cfg.Base
		cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			switch place := req.URL.String(); {
			case req.Header.Get(transport.HeaderAttestation) != "" || req.Header.Get(transport.HeaderAttestationPoP) != "" || req.Header.Get(transport.HeaderDPoP) != "":
				m.carried = append(m.carried, place)
			case req.Method == http.MethodPost:
				m.bare = append(m.bare, place)
			}
			return base.RoundTrip(req)
		})
	}}, edits...)...)
	m.site.set(wellKnown, text(document(issuerURL, oldEndpoints)))
	return m
}

// The endpoints that a client authenticates at, before and after they move.
var oldEndpoints, newEndpoints = endpointsAt(issuerURL), endpointsAt("https://login.example.net")

func endpointsAt(origin string) map[string]any {
	return map[string]any{
		"token_endpoint":                        origin + "/token",
		"pushed_authorization_request_endpoint": origin + "/par",
		"device_authorization_endpoint":         origin + "/device",
		"backchannel_authentication_endpoint":   origin + "/ciba",
		"introspection_endpoint":                origin + "/introspect",
		"revocation_endpoint":                   origin + "/revoke",
	}
}

// move has the Client learn that all endpoints have moved.
func (m *movingServer) move(t *testing.T) {
	t.Helper()
	m.site.set(wellKnown, text(document(issuerURL, newEndpoints)))
	m.clock.advance(25 * time.Hour)
	_, _ = m.Endpoint(t.Context()) // the old ones, until the new ones are there
	synctest.Wait()
	if endpoint, err := m.Endpoint(t.Context()); err != nil || endpoint.TokenURL != movedToken {
		t.Fatalf("token endpoint %q: %v", endpoint.TokenURL, err)
	}
}

// got reports whether a place got a request of that method.
func (m *movingServer) got(method, place string) bool {
	return slices.Contains(m.site.visits(), method+" "+place)
}

// TestRefreshTokenForAFormerEndpoint: an app that holds an oauth2.Endpoint of before the
// metadata changed sends its refresh token to nobody, until it asks for the endpoints.
func TestRefreshTokenForAFormerEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMovingServer(t)
		before, err := m.Endpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.move(t)
		m.site.set(oldToken, redirect(307, target))
		m.site.set(target, text(`{"access_token":"t","token_type":"Bearer"}`))
		m.site.set(movedToken, text(`{"access_token":"t","token_type":"Bearer"}`))
		refresh := func(endpoint oauth2.Endpoint) error {
			ctx := context.WithValue(t.Context(), oauth2.HTTPClient, m.HTTPClient())
			app := oauth2.Config{ClientID: "client", Endpoint: endpoint}
			_, err := app.TokenSource(ctx, &oauth2.Token{RefreshToken: "the-refresh-token"}).Token()
			return err
		}
		var failed *transport.Error
		if err := refresh(before); !errors.As(err, &failed) || failed.Step != transport.StepMetadata || failed.Audience != issuerURL || strings.Contains(err.Error(), "the-refresh-token") {
			t.Errorf("%v, want a *transport.Error of step %q", err, transport.StepMetadata)
		}
		if m.got("POST", oldToken) || m.got("POST", target) || len(m.bare) != 0 {
			t.Errorf("requests %q", m.site.visits())
		}
		after, err := m.Endpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := refresh(after); err != nil || !slices.Equal(m.carried, []string{movedToken}) {
			t.Errorf("at the new endpoint: %v, header fields to %q", err, m.carried)
		}
	})
}

// TestFormerEndpoints: the same for each endpoint, whatever the form is, and for as long
// as the Client lives.
func TestFormerEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMovingServer(t)
		if _, err := m.Endpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.move(t)
		for range 3 { // renewals
			m.clock.advance(25 * time.Hour)
			_, _ = m.Endpoint(t.Context())
			synctest.Wait()
		}
		for _, name := range slices.Sorted(maps.Keys(oldEndpoints)) {
			place := oldEndpoints[name].(string)
			m.site.set(place, redirect(307, target))
			for _, contentType := range []string{"application/x-www-form-urlencoded", "application/json", ""} {
				for _, again := range []string{place, place + "?x=y", strings.Replace(place, "as.example.com", "AS.example.com:443", 1)} {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, again, strings.NewReader("token=secret"))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", contentType)
					_, err = m.HTTPClient().Do(req)
					var failed *transport.Error
					if !errors.As(err, &failed) || failed.Step != transport.StepMetadata {
						t.Errorf("%s, %q: %v", again, contentType, err)
					}
				}
			}
			if m.got("POST", place) {
				t.Errorf("%s got a POST", place)
			}
		}
		if m.got("POST", target) || len(m.carried) != 0 || len(m.bare) != 0 {
			t.Errorf("requests %q", m.site.visits())
		}
	})
}

// TestRedirectsWhileEndpointsMove: none is followed from or to a place that is or was an
// endpoint, whether the request began before the move or after it.
func TestRedirectsWhileEndpointsMove(t *testing.T) {
	for _, code := range []int{302, 303, 307, 308} {
		for name, test := range map[string]struct {
			began    string // before the move, and answered after it; "": nothing
			from, to string // a POST to from is redirected there
			is       error  // nil: a *transport.Error of step "get metadata"
		}{
			"old to elsewhere, under way": {oldToken, "", target, transport.ErrRedirect},
			"old to new, under way":       {oldToken, "", movedToken, transport.ErrRedirect},
			"old to old, under way":       {oldToken, "", issuerURL + "/par", transport.ErrRedirect},
			"old to itself, under way":    {oldToken, "", oldToken, transport.ErrRedirect},
			"new to elsewhere":            {"", movedToken, target, transport.ErrRedirect},
			"new to old":                  {"", movedToken, oldToken, transport.ErrRedirect},
			"new to new":                  {"", movedToken, "https://login.example.net/par", transport.ErrRedirect},
			"elsewhere to new":            {"", "https://other.example.com/", movedToken, transport.ErrRedirect},
			"elsewhere to old":            {"", "https://other.example.com/", oldToken, nil},
		} {
			if code < 307 && strings.HasPrefix(name, "elsewhere") {
				continue // it becomes a GET, which is for nobody
			}
			t.Run(name+" "+http.StatusText(code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMovingServer(t)
					if _, err := m.Endpoint(t.Context()); err != nil {
						t.Fatal(err)
					}
					m.site.set(target, text("{}"))
					form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"r"}}
					result := make(chan error, 1)
					post := func(place string) {
						resp, err := m.HTTPClient().PostForm(place, form)
						if err == nil {
							resp.Body.Close()
						}
						result <- err
					}
					release := make(chan struct{})
					if test.began != "" {
						m.site.set(test.began, held(release, redirect(code, test.to)))
						go post(test.began)
						synctest.Wait()
					}
					m.move(t)
					visits := len(m.site.visits())
					want := 0
					if test.began != "" {
						close(release)
					} else {
						m.site.set(test.from, redirect(code, test.to))
						go post(test.from)
						want = 1
					}
					err := <-result
					var failed *transport.Error
					if test.is != nil && !errors.Is(err, test.is) || test.is == nil && (!errors.As(err, &failed) || failed.Step != transport.StepMetadata) {
						t.Errorf("%v, want %v", err, test.is)
					}
					if after := m.site.visits()[visits:]; len(after) != want {
						t.Errorf("requests %q, want %d", after, want)
					}
				})
			})
		}
	}
}

// TestResourceMetadataChangesUnderWay: a request to a resource is finished by what it
// began with, the next one goes by the new metadata, and a redirect from either is
// refused.
func TestResourceMetadataChangesUnderWay(t *testing.T) {
	describe := func(edits string) http.HandlerFunc { return text(`{"resource":"` + changing + `"` + edits + `}`) }
	synctest.Test(t, func(t *testing.T) {
		m := newMovingServer(t, func(cfg *client.Config) {
			cfg.Resources = []client.Resource{{Identifier: changing}}
		})
		m.site.set(wellKnownOf(changing), describe(`,"client_attestation_pop_methods_supported":["attestation_pop_jwt"]`))
		m.site.set(target, text("{}"))
		call := func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, changing+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer the-access-token")
			resp, err := m.HTTPClient().Do(req)
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		m.site.set(changing+"/x", text("{}"))
		if err := call(); err != nil || len(m.carried) != 1 {
			t.Fatalf("%v, header fields to %q", err, m.carried)
		}
		for _, edits := range []string{`,"client_attestation_pop_methods_supported":["none"]`, `,"client_attestation_pop_methods_supported":["attestation_pop_jwt"],"challenge_endpoint":"` + changing + `/challenge"`} {
			release := make(chan struct{})
			m.site.set(changing+"/x", held(release, redirect(307, target)))
			result := make(chan error, 1)
			go func() { result <- call() }()
			synctest.Wait()
			m.site.set(wellKnownOf(changing), describe(edits))
			m.clock.advance(25 * time.Hour)
			go func() { result <- call() }() // has the metadata renewed
			synctest.Wait()
			close(release)
			for range 2 {
				if err := <-result; !errors.Is(err, transport.ErrRedirect) {
					t.Errorf("%v, want ErrRedirect", err)
				}
			}
			m.site.set(changing+"/challenge", text(`{"attestation_challenge":"c"}`))
			m.site.set(changing+"/x", text("{}"))
			carried := len(m.carried)
			if err := call(); err != nil {
				t.Error(err)
			}
			if attested := len(m.carried) > carried; attested == strings.Contains(edits, "none") {
				t.Errorf("with %s the request was attested: %t", edits, attested)
			}
		}
		if m.got("GET", target) {
			t.Error("a redirect from the resource was followed")
		}
		if !m.got("POST", changing+"/challenge") {
			t.Errorf("the new challenge endpoint was not asked: %q", m.site.visits())
		}
	})
}
