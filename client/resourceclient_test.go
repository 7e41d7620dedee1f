// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A tokenSite is a resource that refuses tokens with a 401.
type tokenSite struct {
	mu       sync.Mutex
	refuse   func(n int, token string) (wwwAuthenticate string, refused bool) // of the nth call
	tokens   []string                                                         // Authorization, in order
	contents []string                                                         // bodies
}

func (s *tokenSite) RoundTrip(req *http.Request) (*http.Response, error) {
	return inProcess{s}.RoundTrip(req)
}

func (s *tokenSite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens, s.contents = append(s.tokens, r.Header.Get("Authorization")), append(s.contents, string(body))
	if field, refused := s.refuse(len(s.tokens), r.Header.Get("Authorization")); refused {
		w.Header().Set("WWW-Authenticate", field)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func first(field string) func(int, string) (string, bool) {
	return func(n int, _ string) (string, bool) { return field, n == 1 }
}

func newTokenRig(t *testing.T, s *tokenSite) (*rig, *client.Client) {
	r := newRig(t, transporttest.Policy{})
	return r, r.client(t, func(cfg *client.Config) {
		cfg.Resources = []client.Resource{{Identifier: firstResource}, {Identifier: secondResource}}
		cfg.Base = byHost{"rs.example.com": s, "other.example.com": s, "elsewhere.example.com": s, "": inProcess{r}}
	})
}

// TestResourceClient (A4): a token is put on, dropped when the resource refuses it, and
// the request is sent once more, whole.
func TestResourceClient(t *testing.T) {
	never := func(int, string) (string, bool) { return "", false }
	always := func(int, string) (string, bool) { return `Bearer error="invalid_token"`, true }
	for name, test := range map[string]struct {
		refuse        func(int, string) (string, bool)
		body          io.Reader
		status        int
		calls, grants int
	}{
		"taken":                          {never, nil, 200, 1, 1},
		"refused":                        {first(`Bearer error="invalid_token"`), nil, 200, 2, 2},
		"refused without a reason":       {first(""), nil, 200, 2, 2},
		"refused, with a body":           {first(""), strings.NewReader("reading=1"), 200, 2, 2},
		"refused, a body for one send":   {first(""), io.NopCloser(strings.NewReader("reading=1")), 401, 1, 1},
		"refused twice":                  {always, strings.NewReader("reading=1"), 401, 2, 2},
		"refused for the proof":          {first(`DPoP error="invalid_dpop_proof"`), nil, 401, 1, 1},
		"refused for the attestation":    {first(`Bearer error="invalid_client_attestation"`), nil, 401, 1, 1},
		"refused for want of an attest.": {first(`Bearer error="use_attestation_challenge"`), nil, 401, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tokenSite{refuse: test.refuse}
			r, c := newTokenRig(t, s)
			hc := c.ResourceClient("a")
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, firstResource+"/x", test.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "text/plain")
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if transport.Sends(resp) != 1 {
				t.Errorf("%d sends of the last request, want 1", transport.Sends(resp))
			}
			if resp.StatusCode != test.status || len(s.tokens) != test.calls || r.Count(transporttest.Token) != test.grants {
				t.Errorf("status %d, %d calls, %d grants, want %d, %d, %d", resp.StatusCode, len(s.tokens), r.Count(transporttest.Token), test.status, test.calls, test.grants)
			}
			if req.Header.Get("Authorization") != "" || resp.Request.Header.Get("Authorization") != "" {
				t.Error("the caller's request has got the token")
			}
			if test.body != nil && slices.ContainsFunc(s.contents, func(c string) bool { return c != "reading=1" }) {
				t.Errorf("bodies %q", s.contents)
			}
			if unique := len(slices.Compact(slices.Clone(s.tokens))); unique != test.calls || !strings.HasPrefix(s.tokens[0], "Bearer ") {
				t.Errorf("tokens %q", s.tokens)
			}
			// A token that was refused is not used again, but the one that replaced it is:
			// a resource that refuses all must not cost two grants a request.
			s.mu.Lock()
			s.refuse = never
			s.mu.Unlock()
			if resp, err = hc.Get(firstResource + "/y"); err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			resp.Body.Close()
			again := slices.Index(s.tokens, s.tokens[len(s.tokens)-1]) < len(s.tokens)-1
			if again != (name != "refused, a body for one send") {
				t.Errorf("tokens %q: the last one was used before: %t", s.tokens, again)
			}
		})
	}
}

// TestResourceClientEach: each resource has its own token, and nobody else gets one.
func TestResourceClientEach(t *testing.T) {
	s := &tokenSite{refuse: func(int, string) (string, bool) { return "", false }}
	r, c := newTokenRig(t, s)
	hc := c.ResourceClient()
	for _, url := range []string{firstResource, secondResource, firstResource, "https://elsewhere.example.com/"} {
		resp, err := hc.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if r.Count(transporttest.Token) != 2 || s.tokens[0] == s.tokens[1] || s.tokens[0] != s.tokens[2] || s.tokens[3] != "" {
		t.Errorf("%d grants, tokens %q", r.Count(transporttest.Token), s.tokens)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, firstResource, nil)
	req.Header.Set("Authorization", "Bearer own")
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if last := s.tokens[len(s.tokens)-1]; last != "Bearer own" {
		t.Errorf("the caller's Authorization became %s", last)
	}
}

// TestResourceClientConcurrent: a token that is refused to many is replaced once.
func TestResourceClientConcurrent(t *testing.T) {
	var bad string
	s := &tokenSite{}
	s.refuse = func(n int, token string) (string, bool) {
		if n == 1 {
			bad = token
		}
		return "", n > 1 && token == bad
	}
	r, c := newTokenRig(t, s)
	hc := c.ResourceClient()
	call := func() error {
		resp, err := hc.Get(firstResource)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 20)
	for range cap(results) {
		go func() { results <- call() }()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := r.Count(transporttest.Token); n != 2 {
		t.Errorf("%d grants, want 2", n)
	}
}

// TestResourceClientRedirect: neither token nor proofs go along.
func TestResourceClientRedirect(t *testing.T) {
	site := newSite()
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, func(cfg *client.Config) {
		cfg.Resources = []client.Resource{{Identifier: firstResource}}
		cfg.Base = byHost{"rs.example.com": inProcess{site}, "elsewhere.example.com": inProcess{site}, "": inProcess{r}}
	})
	site.set(firstResource, redirect(302, "https://elsewhere.example.com/"))
	if _, err := c.ResourceClient().Get(firstResource); !errors.Is(err, transport.ErrRedirect) {
		t.Errorf("error %v", err)
	}
	if visits := site.visits(); slices.ContainsFunc(visits, func(v string) bool { return strings.Contains(v, "elsewhere") }) {
		t.Errorf("visits %q", visits)
	}
}

// ownTokens are another grant's.
type ownTokens struct {
	next    []string
	failure error
	refused int
}

func (o *ownTokens) Token(_ context.Context, resource string) (*oauth2.Token, error) {
	if resource != firstResource {
		return nil, errors.New("for another resource")
	}
	if o.refused > 0 && o.failure != nil {
		return nil, o.failure
	}
	return &oauth2.Token{AccessToken: o.next[min(o.refused, len(o.next)-1)]}, nil
}

func (o *ownTokens) Refused(*oauth2.Token) { o.refused++ }

// TestResourceClientWith: what another grant has, or has not.
func TestResourceClientWith(t *testing.T) {
	away := errors.New("away")
	for name, test := range map[string]struct {
		tokens ownTokens
		status int
		calls  int
	}{
		"another":       {ownTokens{next: []string{"a", "b"}}, 200, 2},
		"no other":      {ownTokens{next: []string{"a"}}, 401, 1},
		"none any more": {ownTokens{next: []string{"a"}, failure: away}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &tokenSite{refuse: first("")}
			_, c := newTokenRig(t, s)
			resp, err := c.ResourceClientWith(&test.tokens).Get(firstResource)
			if (test.status == 0) != errors.Is(err, away) {
				t.Fatal(err)
			}
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != test.status {
					t.Errorf("status %d, want %d", resp.StatusCode, test.status)
				}
			}
			if len(s.tokens) != test.calls || test.tokens.refused != 1 {
				t.Errorf("%d calls, %d refusals", len(s.tokens), test.tokens.refused)
			}
		})
	}
}

func TestTokenSource(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	source := c.TokenSource(ctx, "b", "a")
	var tokens []string
	for range 3 {
		token, err := source.Token()
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token.AccessToken)
	}
	token, err := c.Token(t.Context(), "a", "b")
	if err != nil || len(slices.Compact(append(tokens, token.AccessToken))) != 1 || r.Count(transporttest.Token) != 1 {
		t.Errorf("tokens %q, %d grants, %v", tokens, r.Count(transporttest.Token), err)
	}
	c.Forget(token)
	cancel()
	if _, err := source.Token(); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
}
