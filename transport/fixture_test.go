// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

type policy = transporttest.Policy

const form = "grant_type=refresh_token&refresh_token=very-secret"

// newKey makes a key without a Store.
func newKey() keystore.Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	key, err := keystore.FromSigner(private)
	if err != nil {
		panic(err)
	}
	return key
}

// A fixture is a Transport at a hostile server.
type fixture struct {
	*transport.Transport
	t      testing.TB
	server *transporttest.Server
	key    keystore.Key
	source *transporttest.Source
	clock  *clock
}

// newFixture starts a server with a policy and makes a Transport for it. Each
// edit may change the Transport's configuration first. Tests count requests, so
// the server refuses nothing at random; one that does not count can Set that.
func newFixture(t testing.TB, p transporttest.Policy, edits ...func(*transport.Config)) *fixture {
	t.Helper()
	p.NoRandomRefusals = true
	f := &fixture{t: t, key: newKey(), clock: newClock()}
	f.server = transporttest.New(t, transporttest.Config{Policy: p, Clock: f.clock.Now})
	f.source = f.server.Attester.Source(f.key)
	f.Transport = f.another(edits...)
	return f
}

// another makes one more Transport for the server, with the same key.
func (f *fixture) another(edits ...func(*transport.Config)) *transport.Transport {
	f.t.Helper()
	cfg := transport.Config{
		Key:          f.key,
		Attestations: f.source,
		Servers:      []transport.Server{f.server.Transport()},
		Base:         network(f.t),
		Clock:        f.clock.Now,
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	rt, err := transport.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return rt
}

// network is a base transport of its own, so that no test uses another's
// connections.
func network(t testing.TB) *http.Transport {
	base := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(base.CloseIdleConnections)
	return base
}

// request makes a token request.
func (f *fixture) request(ctx context.Context) *http.Request {
	return newRequest(f.t, ctx, f.server.Endpoint(transporttest.Token))
}

func newRequest(t testing.TB, ctx context.Context, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// token makes one token request, which must be answered with this status.
func (f *fixture) token(status int) *http.Response {
	f.t.Helper()
	return f.want(status, f.request(f.t.Context()))
}

// want sends req, which must be answered with this status.
func (f *fixture) want(status int, req *http.Request) *http.Response {
	f.t.Helper()
	resp, err := f.RoundTrip(req)
	if err != nil {
		f.t.Fatalf("RoundTrip: %v", err)
	}
	body := read(f.t, resp)
	if resp.StatusCode != status {
		f.t.Fatalf("status %d (%.200s), want %d; the server saw:\n%s", resp.StatusCode, body, status, f.history())
	}
	return resp
}

// fail sends req, which must end with an error.
func (f *fixture) fail(req *http.Request) error {
	f.t.Helper()
	resp, err := f.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		f.t.Fatalf("status %d, want an error; the server saw:\n%s", resp.StatusCode, f.history())
	}
	return err
}

// counts checks how many requests an endpoint has seen.
func (f *fixture) counts(tokens, challenges int) {
	f.t.Helper()
	if a, b := f.server.Count(transporttest.Token), f.server.Count(transporttest.Challenge); a != tokens || b != challenges {
		f.t.Fatalf("%d token and %d challenge requests, want %d and %d; the server saw:\n%s", a, b, tokens, challenges, f.history())
	}
}

// sent returns the challenges of the token requests, in order.
func (f *fixture) sent() []string {
	var out []string
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.PoP == nil {
			f.t.Fatalf("a token request without PoP; the server saw:\n%s", f.history())
		}
		out = append(out, r.PoP.Challenge)
	}
	return out
}

func (f *fixture) history() string {
	var b strings.Builder
	for i, r := range f.server.Requests() {
		challenge := ""
		if r.PoP != nil {
			challenge = r.PoP.Challenge
		}
		fmt.Fprintf(&b, "%3d %s %.10q: %d %s %s; offered %.10q\n", i+1, r.Endpoint, challenge, r.Status, r.Code, r.Reason, r.Offered())
	}
	return b.String()
}

func read(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("response body: %v", err)
	}
	return string(body)
}

// onHost changes the host of a URL.
func onHost(t testing.TB, raw, host string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = host
	return u.String()
}
