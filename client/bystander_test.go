// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestOtherRequestsPassAsTheyAre(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if _, err := c.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	signed := r.store.signed.Load()
	token := r.Endpoint(transporttest.Token)
	for name, make := range map[string]func() (*http.Request, error){
		"GET of the token endpoint": func() (*http.Request, error) { return http.NewRequest("GET", token, nil) },
		"POST to a neighbour":       func() (*http.Request, error) { return http.NewRequest("POST", token+"/x", strings.NewReader("a=b")) },
		"POST to the parent": func() (*http.Request, error) {
			return http.NewRequest("POST", token[:strings.LastIndexByte(token, '/')], nil)
		},
		"POST to another host": func() (*http.Request, error) {
			return http.NewRequest("POST", strings.Replace(token, "127.0.0.1", "127.0.0.2", 1), strings.NewReader("a=b"))
		},
		"POST to another port": func() (*http.Request, error) {
			return http.NewRequest("POST", "http://127.0.0.1:1"+r.path(transporttest.Token), strings.NewReader("a=b"))
		},
		"POST over https": func() (*http.Request, error) {
			return http.NewRequest("POST", strings.Replace(token, "http:", "https:", 1), strings.NewReader("a=b"))
		},
		"POST in another case": func() (*http.Request, error) {
			return http.NewRequest("POST", r.URL+strings.ToUpper(r.path(transporttest.Token)), strings.NewReader("a=b"))
		},
		"POST to the challenge place": func() (*http.Request, error) {
			return http.NewRequest("POST", r.Endpoint(transporttest.Challenge), nil)
		},
		"POST for another Host": func() (*http.Request, error) {
			req, err := http.NewRequest("POST", token, strings.NewReader("a=b"))
			req.Host = "other.example.com"
			return req, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := make()
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set(transport.HeaderAttestation, "a.caller's.own")
			req.Header.Set("Authorization", "Bearer theirs")
			before := r.total()
			resp, err := c.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			requests := r.Requests()[before:]
			if len(requests) != 1 {
				t.Fatalf("%d requests, want 1", len(requests))
			}
			header := requests[0].Header
			if len(header.Values(transport.HeaderAttestation))+len(header.Values(transport.HeaderAttestationPoP)) != 0 || header.Get("Authorization") != "Bearer theirs" {
				t.Errorf("header %v, want the caller's without attestation", header)
			}
		})
	}
	if n := r.store.signed.Load() - signed; n != 0 {
		t.Errorf("%d signatures made, want 0", n)
	}
}

// TestFirstRequestToAnEndpoint: what servers that are not strict take for a form is worth
// asking for metadata, before which nobody knows the endpoint.
func TestFirstRequestToAnEndpoint(t *testing.T) {
	for _, mediaType := range []string{"application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded ; charset=utf-8", ""} {
		t.Run(mediaType, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			url := r.endpoint("/revoke", map[string]any{})
			r.edit(transporttest.Metadata, func(m map[string]any) { m["revocation_endpoint"] = url })
			req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("token=t"))
			if err != nil {
				t.Fatal(err)
			}
			if mediaType != "" {
				req.Header.Set("Content-Type", mediaType)
			}
			resp, err := r.client(t).HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 || r.visits("/revoke") != 1 || r.store.signed.Load() != 1 {
				t.Errorf("status %d, %d requests, %d signatures", resp.StatusCode, r.visits("/revoke"), r.store.signed.Load())
			}
		})
	}
}

func TestOtherHostsWhileIssuerIsDown(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	d.site.set(wellKnown, status(503))
	d.site.set("https://other.example.com/form", text("{}"))
	d.site.set("https://other.example.com/page", text("{}"))
	c := d.HTTPClient()
	if code := postForm(t, c, "https://other.example.com/form", url.Values{"a": {"b"}}); code != 200 {
		t.Errorf("POST to another host: %d", code)
	}
	resp, err := c.Get("https://other.example.com/page")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("GET from another host: %v, %v", resp, err)
	}
	resp, err = c.Get(issuerURL + "/page") // any page of the issuer's own
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("GET from the issuer: %v, %v", resp, err)
	}
	if _, err := c.PostForm(issuerURL+"/token", url.Values{"a": {"b"}}); !errors.Is(err, client.ErrMetadata) {
		t.Errorf("POST to the issuer: %v, want ErrMetadata, not a request without authentication", err)
	}
	posts := 0
	for _, visit := range d.site.visits() {
		if strings.HasPrefix(visit, "POST "+issuerURL) {
			posts++
		}
	}
	if posts != 0 || d.store.signed.Load() != 0 {
		t.Errorf("%d POSTs to the issuer, %d signatures, want 0 and 0", posts, d.store.signed.Load())
	}
}

// TestOtherHostsDoNotWaitForIssuer: an issuer that hangs does not hold up each
// form for somebody else.
func TestOtherHostsDoNotWaitForIssuer(t *testing.T) {
	const other, pinned = "https://other.example.com/form", "https://login.example.net/form"
	type step struct {
		after time.Duration // since the step before
		url   string
		waits bool
	}
	for name, test := range map[string]struct {
		origins []string
		steps   []step
	}{
		"any origin": {nil, []step{
			{0, other, true},
			{0, other, false},
			{0, pinned, false},
			{4 * time.Minute, other, false},
			{0, issuerURL + "/token", true}, // which always tries
			{2 * time.Minute, other, false},
			{3 * time.Minute, other, true},
			{-time.Hour, other, true}, // the clock is set back
			{0, other, false},
		}},
		"pinned origins": {[]string{"https://login.example.net"}, []step{
			{0, other, false},
			{0, pinned, true},
			{0, pinned, true},
			{0, issuerURL + "/token", true},
			{time.Hour, other, false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiscoverer(t, issuerURL, func(cfg *client.Config) { cfg.Origins = test.origins })
				d.site.set(wellKnown, held(nil, nil))
				d.site.set(other, text("{}"))
				d.site.set(pinned, text("{}"))
				for i, step := range test.steps {
					d.clock.advance(step.after)
					begin := time.Now()
					resp, err := d.HTTPClient().PostForm(step.url, url.Values{"a": {"b"}})
					if err == nil {
						resp.Body.Close()
					}
					servers := strings.HasPrefix(step.url, issuerURL) || test.origins != nil && step.url == pinned
					if errors.Is(err, client.ErrMetadata) != servers || !servers && err != nil {
						t.Errorf("step %d: error %v", i, err)
					}
					want := map[bool]time.Duration{true: 30 * time.Second}[step.waits]
					if waited := time.Since(begin); waited != want {
						t.Errorf("step %d: %s waited %s, want %s", i, step.url, waited, want)
					}
				}
				if sent := slices.Contains(d.site.visits(), "POST "+pinned); sent == (test.origins != nil) {
					t.Errorf("a form was sent to %s: %t, want that only where it is not known to be the server's", pinned, sent)
				}
			})
		})
	}
}

func TestGETsDoNotAskForMetadata(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	c := d.HTTPClient()
	for _, send := range []func() (*http.Response, error){
		func() (*http.Response, error) { return c.Get("https://other.example.com/") },
		func() (*http.Response, error) { return c.Head("https://other.example.com/") },
		func() (*http.Response, error) {
			return c.Post("https://other.example.com/", "application/json", strings.NewReader("{}"))
		},
		func() (*http.Response, error) { return c.Get(issuerURL + "/userinfo") },
	} {
		resp, err := send()
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if visits := d.site.visits(); len(visits) != 4 {
		t.Errorf("requests %q, want the four", visits)
	}
}

// closing counts how often a request's body is closed.
type closing struct {
	io.Reader
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

func TestEndpointNeverUnauthenticatedOnceKnown(t *testing.T) {
	d := newDiscoverer(t, issuerURL)
	const token = "https://tokens.example.net/token" // not on the issuer's origin
	d.site.set(wellKnown, text(document(issuerURL, map[string]any{"token_endpoint": token})))
	if _, err := d.Endpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.clock.advance(25 * 3600e9)
	d.Close()
	d.site.set(token, text(`{"access_token":"t","token_type":"Bearer"}`))
	body := &closing{Reader: strings.NewReader("grant_type=refresh_token&refresh_token=r")}
	req, err := http.NewRequest("POST", token, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if _, err := d.HTTPClient().Do(req); err == nil {
		t.Error("no error after Close")
	}
	for _, visit := range d.site.visits() {
		if visit == "POST "+token {
			t.Error("the refresh token was sent without authentication")
		}
	}
	if body.closed == 0 {
		t.Error("the body was not closed")
	}
}

func TestRedirectToEndpointIsRefused(t *testing.T) {
	// Also when metadata is not known yet: the foreign server must not make
	// this client authenticate the request of its choice.
	for name, warm := range map[string]bool{"cold": false, "warm": true} {
		t.Run(name, func(t *testing.T) {
			d := newDiscoverer(t, issuerURL)
			d.site.set(wellKnown, text(document(issuerURL, nil)))
			d.site.set("https://other.example.com/", redirect(307, issuerURL+"/token"))
			if warm {
				if _, err := d.Endpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			_, err := d.HTTPClient().PostForm("https://other.example.com/", url.Values{"a": {"b"}})
			if !errors.Is(err, transport.ErrRedirect) {
				t.Errorf("error %v, want ErrRedirect", err)
			}
			if n := d.store.signed.Load(); n != 0 {
				t.Errorf("%d signatures made, want 0", n)
			}
		})
	}
}

// TestOtherHostsWhileImpatientCallersCome: who asks for the metadata of an issuer that
// is not there gives up before the request for it does.
func TestOtherHostsWhileImpatientCallersCome(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t, func(cfg *client.Config) {
			cfg.Clock = nil
			cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if err := req.Context().Err(); err != nil {
					return nil, err
				}
				if req.URL.Host == "elsewhere.example" {
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
				}
				<-req.Context().Done()
				return nil, req.Context().Err()
			})
		})
		failures := 0
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://elsewhere.example/", strings.NewReader("a=b"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if resp, err := c.HTTPClient().Do(req); err != nil {
				failures++
			} else {
				resp.Body.Close()
			}
			cancel()
			time.Sleep(20 * time.Second)
		}
		if failures != 1 {
			t.Errorf("%d of 10 requests to another host failed, want the first alone", failures)
		}
	})
}
