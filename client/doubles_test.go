// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/release"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// A countingStore counts what is asked of it, and its keys count signatures. If
// fail is set, Open fails with it.
type countingStore struct {
	keystore.Store
	fail                   error
	opens, creates, signed atomic.Int64
}

func (s *countingStore) Create(ctx context.Context, name string) (keystore.Key, error) {
	s.creates.Add(1)
	return s.count(s.Store.Create(ctx, name))
}

func (s *countingStore) Open(ctx context.Context, name string) (keystore.Key, error) {
	s.opens.Add(1)
	if s.fail != nil {
		return nil, s.fail
	}
	return s.count(s.Store.Open(ctx, name))
}

func (s *countingStore) count(key keystore.Key, err error) (keystore.Key, error) {
	if err != nil {
		return nil, err
	}
	return countingKey{key, &s.signed}, nil
}

type countingKey struct {
	keystore.Key
	signed *atomic.Int64
}

func (k countingKey) Sign(ctx context.Context, signingInput []byte) ([]byte, error) {
	k.signed.Add(1)
	return k.Key.Sign(ctx, signingInput)
}

// newKey returns a key of its own store.
func newKey(t testing.TB, algorithm string) keystore.Key {
	t.Helper()
	key, err := softkey.New().CreateKey(t.Context(), "key", softkey.KeyOptions{Algorithm: algorithm})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A testAttester keeps what it is asked. call counts from 1.
type testAttester struct {
	mu       sync.Mutex
	requests []client.AttestRequest
	attest   func(ctx context.Context, req client.AttestRequest, call int) (string, error)
}

func (a *testAttester) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	a.mu.Lock()
	a.requests = append(a.requests, req)
	call, attest := len(a.requests), a.attest
	a.mu.Unlock()
	return attest(ctx, req, call)
}

func (a *testAttester) calls() []client.AttestRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]client.AttestRequest(nil), a.requests...)
}

// set changes what the attester does from now on.
func (a *testAttester) set(attest func(ctx context.Context, req client.AttestRequest, call int) (string, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attest = attest
}

// A site is a web server that answers with what its pages hold, by URL without
// query, and with 404 otherwise.
type site struct {
	mu    sync.Mutex
	pages map[string]http.HandlerFunc
	log   []string
}

func newSite() *site { return &site{pages: make(map[string]http.HandlerFunc)} }

func (s *site) set(url string, page http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[url] = page
}

// visits returns method and URL of the requests so far.
func (s *site) visits() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	place := r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()
	s.mu.Lock()
	s.log = append(s.log, r.Method+" "+place)
	page := s.pages[place]
	s.mu.Unlock()
	if page == nil {
		http.NotFound(w, r)
		return
	}
	page(w, r)
}

// text is a page of JSON.
func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
}

// status is a page of a status alone.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// redirect is a page that sends elsewhere.
func redirect(code int, to string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(code)
	}
}

// selfAttest returns what makes an attester of an instance that attests itself.
func selfAttest(t testing.TB) func(context.Context, client.AttestRequest, int) (string, error) {
	self := client.SelfAttester{Key: newKey(t, "ES256")}
	return func(ctx context.Context, req client.AttestRequest, _ int) (string, error) {
		return self.Attest(ctx, req)
	}
}

// overTLS makes responses look as if they had come over TLS.
type overTLS struct{ http.RoundTripper }

func (o overTLS) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.TLS = overTLSState
	}
	return resp, err
}

// overTLSState is that of a server whose certificate lives long, and not for ever.
var overTLSState = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: []*x509.Certificate{{
	NotBefore: release.Since.AddDate(-20, 0, 0), NotAfter: release.Since.AddDate(20, 0, 0),
}}}

// countingKeyOf returns a key with its own count.
func countingKeyOf(t testing.TB) countingKey {
	return countingKey{newKey(t, "ES256"), new(atomic.Int64)}
}

// endpointBase is a base transport that calls hold before it answers for an endpoint.
type endpointBase struct {
	http.RoundTripper
	rig      *rig
	endpoint string
	hold     func(context.Context)
}

func (b endpointBase) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.endpoint != fromAttester && req.URL.Path == b.rig.path(b.endpoint) {
		b.hold(req.Context())
	}
	return b.RoundTripper.RoundTrip(req)
}
