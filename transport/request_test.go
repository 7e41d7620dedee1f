// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A portrait is all of a request that RoundTrip must leave as it was.
type portrait struct {
	request http.Request
	url     string
	header  http.Header
	body    io.ReadCloser
	getBody uintptr
}

func portray(req *http.Request) portrait {
	return portrait{*req, fmt.Sprintf("%#v", *req.URL), req.Header.Clone(), req.Body, reflect.ValueOf(req.GetBody).Pointer()}
}

func (p portrait) compare(t *testing.T, req *http.Request) {
	t.Helper()
	now := portray(req)
	if !reflect.DeepEqual(p.header, now.header) {
		t.Errorf("header was %v, is %v", p.header, now.header)
	}
	if p.url != now.url || p.body != now.body || p.getBody != now.getBody {
		t.Errorf("URL, Body or GetBody were changed")
	}
	a, b := p.request, now.request
	a.GetBody, b.GetBody = nil, nil // functions are never equal
	if !reflect.DeepEqual(a, b) {
		t.Errorf("request was %+v, is %+v", a, b)
	}
}

func TestCallersRequestIsNotChanged(t *testing.T) { // contract line 1, test 2
	for name, p := range map[string]transporttest.Policy{
		"success": {},
		"retry":   {NoEndpoint: true},
		"refused": {UnknownClient: true},
		"cut":     {Cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, p)
			req := f.request(t.Context())
			req.Header["oauth-client-attestation"] = []string{"mine"}
			req.Header.Set("X-Own", "mine")
			before := portray(req)
			resp, err := f.RoundTrip(req)
			before.compare(t, req)
			if err == nil {
				read(t, resp)
				before.compare(t, req)
			}
			if (err != nil) != p.Cut {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestBodyIsClosedOnce drives every exit of RoundTrip (contract line 2, test 1).
func TestBodyIsClosedOnce(t *testing.T) {
	broken := func(*http.Request) (*http.Response, error) { return nil, errTest }
	closing := func(req *http.Request) (*http.Response, error) {
		req.Body.Close() // as the contract of http.RoundTripper says
		return nil, errTest
	}
	tests := []struct {
		name   string
		policy transporttest.Policy
		config func(*fixture, *transport.Config)
		change func(*http.Request)
		sends  int64 // by the base transport, challenge requests included
		bodies int64 // of GetBody
		err    bool
	}{
		{name: "success", sends: 2},
		{name: "retry", policy: transporttest.Policy{NoEndpoint: true}, sends: 2, bodies: 1},
		{name: "refused twice", policy: transporttest.Policy{RefuseAll: true}, sends: 3, bodies: 1},
		{name: "no GetBody", policy: transporttest.Policy{NoEndpoint: true}, change: func(r *http.Request) { r.GetBody = nil }, sends: 1},
		{name: "GetBody fails", policy: transporttest.Policy{NoEndpoint: true},
			change: func(r *http.Request) { r.GetBody = func() (io.ReadCloser, error) { return nil, errTest } }, sends: 1, err: true},
		{name: "invalid_client", policy: transporttest.Policy{UnknownClient: true}, sends: 2},
		{name: "cut", policy: transporttest.Policy{Cut: true, NoEndpoint: true}, sends: 1, err: true},
		{name: "attestation error", config: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return "", errTest })
		}, err: true},
		{name: "attestation empty", config: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return "", nil })
		}, err: true},
		{name: "attestation too large", config: func(_ *fixture, c *transport.Config) {
			c.Attestations = sourceFunc(func(context.Context, string, []string) (string, error) { return strings.Repeat("a", 20<<10), nil })
		}, sends: 1, err: true},
		{name: "challenge error", config: func(_ *fixture, c *transport.Config) { c.Base = roundTripper(broken) }, err: true},
		{name: "challenge refused", policy: transporttest.Policy{Redirect: 307}, sends: 1, err: true},
		{name: "sign error", config: func(f *fixture, c *transport.Config) { c.Key = failingKey{f.key, errTest} }, sends: 1, err: true},
		{name: "claims error", config: func(_ *fixture, c *transport.Config) {
			c.Claims = func(*http.Request) (map[string]any, error) { return nil, errTest }
		}, err: true},
		{name: "body that cannot be bound", config: func(_ *fixture, c *transport.Config) { c.BindBody = true }, change: func(r *http.Request) { r.GetBody = nil }, err: true},
		{name: "base error", policy: transporttest.Policy{NoEndpoint: true}, config: func(_ *fixture, c *transport.Config) { c.Base = roundTripper(closing) }, err: true},
		{name: "foreign origin", change: func(r *http.Request) { r.URL.Path, r.Host = "/elsewhere", "" }, sends: 1},
		{name: "redirected", change: func(r *http.Request) { r.Response = &http.Response{} }, err: true},
		{name: "nil header", change: func(r *http.Request) { r.Header = nil }, sends: 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var sends *base
			f := newFixture(t, test.policy)
			rt := f.another(func(c *transport.Config) {
				sends = &base{handler: f.server}
				c.Base = sends
				if test.config != nil {
					test.config(f, c)
				}
			})
			req := f.request(t.Context())
			first := newSpyBody()
			req.Body = first
			var again []*spyBody
			req.GetBody = func() (io.ReadCloser, error) {
				again = append(again, newSpyBody())
				return again[len(again)-1], nil
			}
			if test.change != nil {
				test.change(req)
			}
			resp, err := rt.RoundTrip(req)
			if err == nil {
				read(t, resp)
			}
			if (err != nil) != test.err {
				t.Errorf("error %v, want one: %v", err, test.err)
			}
			if n := first.closes.Load(); n != 1 {
				t.Errorf("body closed %d times", n)
			}
			for i, body := range again {
				if n := body.closes.Load(); n != 1 {
					t.Errorf("body %d of GetBody closed %d times", i+1, n)
				}
			}
			if n := sends.sends.Load(); n != test.sends || int64(len(again)) != test.bodies {
				t.Errorf("%d sends and %d bodies, want %d and %d", n, len(again), test.sends, test.bodies)
			}
		})
	}
}

// TestOddRequestsDoNotPanic: what http.Client would have put right before.
func TestOddRequestsDoNotPanic(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	t.Run("nil header", func(t *testing.T) {
		req := f.request(t.Context())
		req.Header = nil
		f.want(http.StatusOK, req)
		if req.Header != nil {
			t.Error("the caller's header was set")
		}
	})
	t.Run("nil URL", func(t *testing.T) {
		body := newSpyBody()
		f.fail(&http.Request{Method: http.MethodPost, Header: http.Header{}, Body: body})
		if n := body.closes.Load(); n != 1 {
			t.Errorf("body closed %d times", n)
		}
	})
	t.Run("nil body", func(t *testing.T) {
		req := f.request(t.Context())
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
		f.want(http.StatusOK, req)
	})
}

// TestNonReplayableBody: contract line 3, test 7.
func TestNonReplayableBody(t *testing.T) {
	f := newFixture(t, transporttest.Policy{NoEndpoint: true})
	req := f.request(t.Context())
	req.GetBody = nil
	resp, err := f.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "use_attestation_challenge") {
		t.Errorf("%d %q, want the server's own refusal", resp.StatusCode, body)
	}
	f.counts(1, 0)
	f.token(http.StatusOK) // with the challenge of that refusal
	f.counts(2, 0)
	if sent, offered := f.sent()[1], f.server.Requests(transporttest.Token)[0].Offered(); sent != offered {
		t.Errorf("sent challenge %q, want the offered one %q", sent, offered)
	}
}

// TestBodyOfEveryAttemptIsWhole: contract line 4.
func TestBodyOfEveryAttemptIsWhole(t *testing.T) {
	f := newFixture(t, transporttest.Policy{NoEndpoint: true})
	f.token(http.StatusOK)
	f.counts(2, 0)
	for i, r := range f.server.Requests(transporttest.Token) {
		if string(r.Body) != form {
			t.Errorf("body %d is %q", i+1, r.Body)
		}
	}
}

// TestNetHTTPRepeatsNoPoP: net/http sends a POST again on its own, with the
// same PoP, if it has such a header field and a reused connection is cut.
func TestNetHTTPRepeatsNoPoP(t *testing.T) {
	for _, name := range []string{"", "Idempotency-Key", "X-Idempotency-Key", "idempotency-key"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{})
			f.token(http.StatusOK) // now there is a connection to reuse
			f.server.Set(func(p *transporttest.Policy) { p.Cut = true })
			req := f.request(t.Context())
			if name != "" {
				req.Header[name] = []string{"1"}
			}
			f.fail(req)
			seen := make(map[string]bool)
			for _, r := range f.server.Requests(transporttest.Token) {
				if seen[r.PoP.ID] {
					t.Errorf("PoP %s was sent twice", r.PoP.ID)
				}
				seen[r.PoP.ID] = true
			}
			f.counts(2, 1)
		})
	}
}
