// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestBindBodyOfEachRequest(t *testing.T) {
	bind := func(cfg *transport.Config) { cfg.BindBody = true }
	t.Run("every request and retry", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{NoEndpoint: true}, bind)
		f.token(http.StatusOK)
		f.token(http.StatusOK)
		want := sha256Half([]byte(form))
		if got := f.claims("req_hash"); fmt.Sprint(got) != fmt.Sprint([]any{want, want, want}) {
			t.Errorf("req_hash %q", got)
		}
		for _, r := range f.server.Requests(transporttest.Token) {
			if string(r.Body) != form {
				t.Errorf("body %q", r.Body)
			}
		}
	})
	t.Run("BindMessage wins", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{}, bind)
		f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), []byte(parBody))))
		if got := f.claims("req_hash"); got[0] != parHash256 {
			t.Errorf("req_hash %q", got)
		}
	})
	t.Run("no body", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{}, bind)
		for _, body := range []io.ReadCloser{nil, http.NoBody} {
			req := f.request(t.Context())
			req.Body, req.GetBody, req.ContentLength = body, nil, 0
			f.want(http.StatusOK, req)
		}
		if got := f.claims("req_hash"); fmt.Sprint(got) != fmt.Sprint([]any{emptyHash256, emptyHash256}) {
			t.Errorf("req_hash %q", got)
		}
	})
	t.Run("1 MiB is not too long", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{}, bind)
		long := "x=" + strings.Repeat("x", 1<<20-2)
		f.want(http.StatusOK, withBody(t, f, long))
		if got := f.claims("req_hash"); got[0] != sha256Half([]byte(long)) {
			t.Errorf("req_hash %q", got)
		}
	})

	failing := func(err error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return nil, err }
	}
	for name, change := range map[string]func(*http.Request){
		"read only once": func(req *http.Request) { req.GetBody = nil },
		"GetBody fails":  func(req *http.Request) { req.GetBody = failing(errTest) },
		"body fails": func(req *http.Request) {
			req.GetBody = func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader("x"), brokenReader{})), nil
			}
		},
		"more than 1 MiB": func(req *http.Request) {
			req.GetBody = func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20+1))), nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{}, bind)
			req, body := f.request(t.Context()), newSpyBody()
			req.Body = body
			change(req)
			err := f.fail(req)
			if !errors.Is(err, transport.ErrBinding) || strings.Contains(name, "fails") != errors.Is(err, errTest) {
				t.Errorf("error %v", err)
			}
			if n := body.closes.Load(); n != 1 {
				t.Errorf("body closed %d times", n)
			}
			f.counts(0, 0)
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errTest }

func withBody(t testing.TB, f *fixture, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.Endpoint(transporttest.Token), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

// TestClaims: the caller's claims are in every PoP JWT of a request and its
// retries, and the hook is asked once.
func TestClaims(t *testing.T) {
	calls := 0
	f := newFixture(t, transporttest.Policy{NoEndpoint: true}, func(cfg *transport.Config) {
		cfg.Claims = func(req *http.Request) (map[string]any, error) {
			calls++
			return map[string]any{"path": req.URL.Path, "call": calls, "Aud": "x", "": nil}, nil
		}
	})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	path := f.server.Endpoint(transporttest.Token)[len(f.server.URL):]
	if got := f.claims("path"); fmt.Sprint(got) != fmt.Sprint([]any{path, path, path}) {
		t.Errorf("path %q", got)
	}
	if got := f.claims("call"); fmt.Sprint(got) != "[1 1 2]" || calls != 2 {
		t.Errorf("call %v of %d", got, calls)
	}
}

// TestClaimsReserved: what the draft, its earlier versions and BindMessage set is
// not the hook's, and nothing is sent.
func TestClaimsReserved(t *testing.T) {
	names := []string{"aud", "jti", "iat", "challenge", "iss", "sub", "nbf", "exp", "nonce", "cnf", "req_hash"}
	for _, profile := range []transport.Profile{transport.ProfileDraft12, transport.ProfileOpenID4VCI} {
		for _, name := range names {
			t.Run(fmt.Sprint(profile, " ", name), func(t *testing.T) {
				f := newFixture(t, transporttest.Policy{}, func(cfg *transport.Config) {
					cfg.ClientID, cfg.Servers[0].Profile = "client", profile
					cfg.Claims = func(*http.Request) (map[string]any, error) { return map[string]any{"x": 1, name: nil}, nil }
				})
				if err := f.fail(f.request(t.Context())); !strings.Contains(err.Error(), `"`+name+`"`) {
					t.Errorf("error %v", err)
				}
				f.counts(0, 0)
			})
		}
	}
	// And the list is whole: nothing that is sent is missing in it.
	f := newFixture(t, transporttest.Policy{}, func(cfg *transport.Config) {
		cfg.ClientID, cfg.Servers[0].Profile = "client", transport.ProfileOpenID4VCI
	})
	f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), nil)))
	for _, name := range slices.Collect(maps.Keys(f.server.Requests(transporttest.Token)[0].PoP.Claims)) {
		if !slices.Contains(names, name) {
			t.Errorf("claim %q is not reserved", name)
		}
	}
}

func TestClaimsFail(t *testing.T) {
	for name, hook := range map[string]func(*http.Request) (map[string]any, error){
		"error":   func(*http.Request) (map[string]any, error) { return nil, errTest },
		"no JSON": func(*http.Request) (map[string]any, error) { return map[string]any{"x": func() {}}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{}, func(cfg *transport.Config) { cfg.Claims = hook })
			req, body := f.request(t.Context()), newSpyBody()
			req.Body = body
			if err := f.fail(req); name == "error" && !errors.Is(err, errTest) {
				t.Errorf("error %v", err)
			}
			if n, tokens := body.closes.Load(), f.server.Count(transporttest.Token); n != 1 || tokens != 0 {
				t.Errorf("body closed %d times, %d token requests", n, tokens)
			}
		})
	}
}
