// SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// A Resource is a protected resource with metadata (RFC 9728). It takes the access tokens
// that the authorization server has issued for it, or for no resource in particular, with
// the proof that a token is bound to.
type Resource struct {
	URL string // the resource identifier

	server   *transporttest.Server
	grants   *grants
	attested bool
	api      http.Handler
	away     atomic.Bool

	mu       sync.Mutex
	requests []ResourceRequest
}

// A ResourceRequest is a request for the resource, or below it, and what became of it.
type ResourceRequest struct {
	Method, Path string
	Header       http.Header
	Body         []byte
	Token        Token  // the access token, if it is good
	Reason       string // why the request was refused, with status 401; "" if it was not
}

func newResource(tb testing.TB, cfg Config, server *transporttest.Server, g *grants) *Resource {
	r := &Resource{server: server, grants: g, attested: cfg.AttestedResource, api: cfg.API}
	if r.api == nil {
		r.api = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	}
	site := httptest.NewServer(r)
	tb.Cleanup(site.Close)
	r.URL = site.URL + "/resource"
	return r
}

// SetAway takes the resource away, or brings it back. Requests to one that is away get no
// answer.
func (r *Resource) SetAway(away bool) { r.away.Store(away) }

// Requests returns the requests so far that got an answer, without those for metadata, in
// the order in which they came.
func (r *Resource) Requests() []ResourceRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Forget forgets the requests so far, for a test that makes so many that they take room.
func (r *Resource) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// ServeHTTP implements http.Handler, for tests that want no network in between.
func (r *Resource) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	if r.away.Load() {
		panic(http.ErrAbortHandler)
	}
	here, err := url.Parse(r.URL)
	if err != nil {
		panic(err) // it is httptest's
	}
	switch path := hr.URL.Path; {
	case path == "/.well-known/oauth-protected-resource"+here.Path:
		writeJSON(w, http.StatusOK, r.metadata())
		return
	case path != here.Path && !strings.HasPrefix(path, here.Path+"/"):
		http.NotFound(w, hr)
		return
	}
	body, err := io.ReadAll(hr.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone away
	}
	scheme, access, _ := strings.Cut(hr.Header.Get("Authorization"), " ")
	token, code, reason := r.check(hr, scheme, access)
	r.mu.Lock()
	r.requests = append(r.requests, ResourceRequest{hr.Method, hr.URL.Path, hr.Header.Clone(), body, token, reason})
	r.mu.Unlock()
	if reason != "" {
		challenge := "Bearer"
		if strings.EqualFold(scheme, "DPoP") {
			challenge = "DPoP"
		}
		if code != "" {
			challenge += ` error="` + code + `"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	hr.Body = io.NopCloser(bytes.NewReader(body))
	r.api.ServeHTTP(w, hr)
}

func (r *Resource) metadata() map[string]any {
	m := map[string]any{"resource": r.URL, "authorization_servers": []string{r.server.Issuer}}
	if r.attested {
		m["client_attestation_pop_methods_supported"] = []string{"attestation_pop_jwt"}
	}
	return m
}

// check verifies what a request carries. With a reason it is refused, and code is the
// error in WWW-Authenticate.
func (r *Resource) check(hr *http.Request, scheme, access string) (token Token, code, reason string) {
	if access == "" {
		return token, "", "there is no access token"
	}
	token, ok := r.grants.find(access)
	bound := token.DPoPThumbprint != ""
	switch {
	case !ok:
		return Token{}, "invalid_token", "the access token is unknown, revoked or expired"
	case len(token.Resources) > 0 && !slices.Contains(token.Resources, r.URL):
		return token, "invalid_token", "the access token is for other resources"
	case bound != strings.EqualFold(scheme, "DPoP") || !bound && !strings.EqualFold(scheme, "Bearer"):
		return token, "invalid_token", "the access token has another type than the Authorization field says"
	}
	if bound {
		here := "http://" + hr.Host + hr.URL.EscapedPath()
		key, err := r.server.VerifyDPoP(hr.Header, hr.Method, here, access)
		switch {
		case err != nil:
			return token, "invalid_dpop_proof", "DPoP: " + err.Error()
		case key != token.DPoPThumbprint:
			return token, "invalid_token", "the access token is bound to another key"
		}
	}
	if !r.attested {
		return token, "", ""
	}
	key, err := r.server.VerifyAttestation(hr.Header, r.URL)
	switch {
	case err != nil:
		return token, "invalid_client_attestation", err.Error()
	case key != token.KeyThumbprint:
		return token, "invalid_client_attestation", "the attestation is for another key than the access token"
	}
	return token, "", ""
}
