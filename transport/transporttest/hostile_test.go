// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	. "github.com/instancekey/instancekey/transport/transporttest"
)

// sneak makes a request that would be in order.
func (c *client) sneak() parts {
	return parts{attestation: []string{c.server.Attester.Attest(&c.key.PublicKey)}, pop: []string{c.pop("")}, body: "secret=1"}
}

func TestRedirect(t *testing.T) {
	for _, status := range []int{302, 307, 308} {
		c := newClient(t, Config{Policy: Policy{Redirect: status}})
		resp := c.do(c.sneak())
		if resp.StatusCode != status || !strings.HasPrefix(resp.Header.Get("Location"), c.server.Trap.URL+"/") {
			t.Errorf("%d to %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		if c.server.Trap.Visits() != 0 || c.server.Count(Token) != 1 {
			t.Errorf("%d visits, %d token requests", c.server.Trap.Visits(), c.server.Count(Token))
		}
	}
}

// mute is a testing.TB that fails nothing and remembers what should have.
type mute struct {
	testing.TB
	failures []string
}

func (m *mute) Errorf(format string, args ...any) {
	m.failures = append(m.failures, fmt.Sprintf(format, args...))
}

// TestTrap: each thing that must not arrive is noticed, and nothing else.
func TestTrap(t *testing.T) {
	for _, name := range []string{"OAuth-Client-Attestation", "oauth-client-attestation-pop", "DPoP", "Authorization", "body", "X-Other", ""} {
		m := &mute{TB: t}
		trap := NewTrap(m)
		body := ""
		if name == "body" {
			body = "x"
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, trap.URL, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if name != "" && name != "body" {
			req.Header[name] = []string{"x"}
		}
		base := new(http.Transport)
		resp, err := base.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		base.CloseIdleConnections()
		want := 1
		if name == "" || name == "X-Other" {
			want = 0
		}
		if len(m.failures) != want || trap.Visits() != 1 {
			t.Errorf("%q: %q after %d visits", name, m.failures, trap.Visits())
		}
	}
}

func TestCut(t *testing.T) {
	c := newClient(t, Config{Policy: Policy{Cut: true}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.server.Endpoint(Token), strings.NewReader("secret=1"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.http.Do(req); err == nil {
		t.Errorf("answered with %s", resp.Status)
	}
	if requests := c.server.Requests(Token); len(requests) != 1 || string(requests[0].Body) != "secret=1" || requests[0].Status != 0 {
		t.Errorf("recorded %+v", requests)
	}
}

func TestEarly(t *testing.T) {
	c := newClient(t, Config{Policy: Policy{Early: true}})
	p := c.sneak()
	p.body = strings.Repeat("x", 1<<20)
	if code := c.code(c.do(p)); code != "use_attestation_challenge" {
		t.Error(code)
	}
	if requests := c.server.Requests(Token); requests[0].Body != nil {
		t.Errorf("body of %d bytes was read", len(requests[0].Body))
	}
}

func TestBodies(t *testing.T) {
	for form, want := range map[BodyForm]string{
		PlainBody:     `{"error":"use_attestation_challenge"}`,
		GzipBody:      `{"error":"use_attestation_challenge"}`, // net/http has unzipped it
		DuplicateBody: `{"error":"invalid_grant","error":"use_attestation_challenge"}`,
		HugeBody:      "",
	} {
		c := newClient(t, Config{Policy: Policy{Body: form, ContentType: "text/x"}})
		resp := c.do(c.sneak())
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Header.Get("Content-Type") != "text/x" || resp.Uncompressed != (form == GzipBody) {
			t.Errorf("form %d: %v, %v", form, resp.Header, err)
		}
		if form == HugeBody && len(body) < 1<<20 || form != HugeBody && string(body) != want {
			t.Errorf("form %d: %.100q of %d bytes", form, body, len(body))
		}
	}
}

func TestGate(t *testing.T) {
	c := newClient(t, Config{})
	gate := c.server.Gate()
	c.server.Set(func(p *Policy) { p.Before = gate.Hold })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server.Endpoint(Token), nil)
		if err == nil {
			_, err = c.http.Do(req)
		}
		ended <- err
	}()
	if r := gate.Arrived(); r.Endpoint != Token || r.Status != 0 {
		t.Errorf("held %+v", r)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gate.Open()
	gate.Open() // does no harm
	c.do(c.sneak())
}

// TestGateIsOpenedAtTheEnd: a server with a held request can be closed.
func TestGateIsOpenedAtTheEnd(t *testing.T) {
	held := make(chan struct{})
	t.Run("inner", func(t *testing.T) {
		c := newClient(t, Config{})
		gate := c.server.Gate()
		c.server.Set(func(p *Policy) { p.After = gate.Hold })
		p := c.sneak()
		go func() {
			defer close(held)
			req, err := http.NewRequest(http.MethodPost, c.server.Endpoint(Token), strings.NewReader(p.body))
			if err != nil {
				return
			}
			if resp, err := c.http.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		if r := gate.Arrived(); r.Code != "invalid_client" || r.Status != 401 {
			t.Errorf("held after judgement: %+v", r)
		}
	})
	<-held
}

func TestIntercept(t *testing.T) {
	c := newClient(t, Config{})
	c.server.Set(func(p *Policy) {
		p.Intercept = func(w http.ResponseWriter, r Request) bool {
			if r.Endpoint == Challenge {
				w.WriteHeader(http.StatusTeapot)
			}
			return r.Endpoint == Challenge
		}
	})
	if resp := c.do(parts{endpoint: Challenge}); resp.StatusCode != http.StatusTeapot {
		t.Error(resp.Status)
	}
	if code := c.code(c.do(c.sneak())); code != "use_attestation_challenge" {
		t.Error(code)
	}
}

// TestChallengeEndpoint: no authentication, no body (S8).
func TestChallengeEndpoint(t *testing.T) {
	c := newClient(t, Config{})
	good := c.do(parts{endpoint: Challenge})
	if good.StatusCode != 200 || good.Header.Get("Cache-Control") != "no-store" || good.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", good.StatusCode, good.Header)
	}
	for name, p := range map[string]parts{
		"GET":         {endpoint: Challenge, method: http.MethodGet},
		"body":        {endpoint: Challenge, body: "x"},
		"attestation": {endpoint: Challenge, attestation: []string{"a.b.c"}},
		"PoP":         {endpoint: Challenge, pop: []string{"a.b.c"}},
	} {
		if resp := c.do(p); resp.StatusCode < 400 {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	c.server.Set(func(p *Policy) { p.NoEndpoint = true })
	if resp := c.do(parts{endpoint: Challenge}); resp.StatusCode != 404 || c.server.Transport().ChallengeEndpoint != "" {
		t.Error(resp.Status)
	}
}

// TestMetadata: RFC 8414's place and members, for clients that discover.
func TestMetadata(t *testing.T) {
	c := newClient(t, Config{})
	resp := c.do(parts{endpoint: Metadata, method: http.MethodGet})
	var m map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	tenant := strings.TrimPrefix(c.server.Issuer, c.server.URL)
	if c.server.Endpoint(Metadata) != c.server.URL+"/.well-known/oauth-authorization-server"+tenant {
		t.Error(c.server.Endpoint(Metadata))
	}
	if m["issuer"] != c.server.Issuer || m["token_endpoint"] != c.server.Endpoint(Token) || m["challenge_endpoint"] != c.server.Endpoint(Challenge) {
		t.Error(m)
	}
	described := c.server.Transport()
	if described.Issuer != c.server.Issuer || described.Endpoints[0] != c.server.Endpoint(Token) || described.Method != "" {
		t.Errorf("%+v", described)
	}
	c.server.Set(func(p *Policy) { p.Combined = true })
	if got := c.server.Transport().Method; got != transport.MethodDPoP {
		t.Error(got)
	}
}

// TestRecord: what is kept of a request.
func TestRecord(t *testing.T) {
	c := newClient(t, Config{ClientID: "me"})
	p := c.sneak()
	c.do(p)
	r := c.server.Requests()[0]
	if r.Attestation() != p.attestation[0] || r.PoP.Audience != c.server.Issuer || r.PoP.ID == "" || r.PoP.IssuedAt == 0 || string(r.Body) != p.body || r.Method != "POST" {
		t.Errorf("%+v", r)
	}
	if c.server.Endpoint(Token) != c.server.URL+r.Path || c.server.Count(Token) != 1 || c.server.Count(PAR) != 0 {
		t.Errorf("%+v", r)
	}
	c.server.Forget()
	if n := len(c.server.Requests()); n != 0 {
		t.Errorf("%d requests after Forget", n)
	}
	c.do(p)
	if r := c.server.Requests(Token)[0]; !strings.Contains(r.Reason, "jti") {
		t.Errorf("a replay after Forget was judged %q", r.Reason)
	}
}
