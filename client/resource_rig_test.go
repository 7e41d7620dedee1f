// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A resourceRig is a rig with resources beside its authorization server.
type resourceRig struct {
	*rig
	t         testing.TB
	key       countingKey
	resources []*resourceServer

	attestation client.ResourceAttestation // of all of them
}

// newResourceRig makes a resource for each identifier. One that begins with a
// slash is on the origin of the authorization server.
func newResourceRig(t testing.TB, policy transporttest.Policy, identifiers ...string) *resourceRig {
	r := &resourceRig{rig: newRig(t, policy), t: t, key: countingKeyOf(t), attestation: client.AttestAlways}
	for _, identifier := range identifiers {
		if strings.HasPrefix(identifier, "/") {
			identifier = r.URL + identifier
		}
		r.resources = append(r.resources, newResourceServer(t, identifier, r.key, r.clock.now))
	}
	return r
}

func (r *resourceRig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Host == "" { // over a socket
		req.URL.Scheme, req.URL.Host = "http", req.Host
	}
	location := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	var found *resourceServer
	for _, s := range r.resources {
		below := strings.HasPrefix(location, s.identifier) || location == wellKnownOf(s.identifier) || s.place != "" && location == s.place
		if below && (found == nil || len(found.identifier) < len(s.identifier)) {
			found = s
		}
	}
	isServers := location == r.Endpoint(transporttest.Token) || location == r.Endpoint(transporttest.Challenge) ||
		strings.HasPrefix(req.URL.Path, "/.well-known/oauth-authorization-server")
	if found != nil && !isServers {
		found.ServeHTTP(w, req)
		return
	}
	r.rig.ServeHTTP(w, req)
}

func (r *resourceRig) client(edits ...func(*client.Config)) *client.Client {
	r.t.Helper()
	return r.rig.client(r.t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Store, cfg.Key, cfg.Base = nil, r.key, inProcess{r}
		for _, s := range r.resources {
			cfg.Resources = append(cfg.Resources, client.Resource{Identifier: s.identifier, Attestation: r.attestation})
		}
	}}, edits...)...)
}

// call sends a request for a resource with an access token of that type, "" for
// none, and wants this status.
func (r *resourceRig) call(c *client.Client, url, scheme string, status int) *http.Response {
	r.t.Helper()
	resp, err := r.try(c, url, scheme)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != status {
		r.t.Fatalf("%s: status %d, want %d", url, resp.StatusCode, status)
	}
	return resp
}

func (r *resourceRig) try(c *client.Client, url, scheme string) (*http.Response, error) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if scheme != "" {
		req.Header.Set("Authorization", scheme+" the-access-token")
	}
	resp, err := c.HTTPClient().Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}
