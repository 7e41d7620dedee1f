// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// roundTripper is the transport of HTTPClient.
type roundTripper struct{ client *Client }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	defer r.client.clock.tell(req.Context())
	return r.client.send(req)
}

// CloseIdleConnections is for http.Client's method of that name.
func (r roundTripper) CloseIdleConnections() { r.client.transport.CloseIdleConnections() }

// send sends a request through the Client's transport, which knows what the request is,
// after seeing to it that its table says what the metadata does.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	at, err := c.prepare(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := c.transport.RoundTrip(req)
	switch {
	case errors.Is(err, transport.ErrClosed):
		return nil, ErrClosed
	case err != nil && req.Context().Err() == nil: // an attestation was waited for, perhaps
		return nil, c.closedOr(err)
	case err == nil && at != nil && resp.StatusCode == http.StatusUnauthorized:
		c.refused(req, at, resp)
	}
	return resp, err
}

// prepare gets the metadata that req may need, and returns the resource that it is for,
// if it is for one.
func (c *Client) prepare(req *http.Request) (*resource, error) {
	if _, fresh := c.known(); !fresh && mayBeEndpoint(req) && c.mayHaveEndpoint(req.URL) {
		if _, err := c.server(req.Context()); err != nil && c.isEndpoint(req) {
			return nil, err
		}
	}
	if len(c.resources) == 0 || req.Response != nil { // what a redirect has made is refused
		return nil, nil
	}
	audience, isResource := c.transport.Audience(req)
	if !isResource {
		return nil, nil
	}
	r := c.resource(audience)
	return r, c.ready(req.Context(), r)
}

// isEndpoint reports whether a request cannot go out without metadata. As long as there
// is none, only the issuer's own origin and the pinned ones are known to be the server's.
// One for what was its endpoint never goes out bare.
func (c *Client) isEndpoint(req *http.Request) bool {
	audience, isResource := c.transport.Audience(req)
	return c.isServers(req.URL) || audience != "" && !isResource
}

// mayBeEndpoint reports whether a request looks like one that a client
// authenticates with. Only such a request is worth asking for metadata: a
// program may send everything it sends through this client. The type is read as
// servers read it that are not strict.
func mayBeEndpoint(req *http.Request) bool {
	mediaType, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return req.Method == http.MethodPost && req.URL != nil && (mediaType == "" || mediaType == "application/x-www-form-urlencoded")
}

// mayHaveEndpoint reports whether metadata is worth asking for on behalf of a
// request to u. An issuer that does not answer must not hold up each request to
// somebody else.
func (c *Client) mayHaveEndpoint(u *url.URL) bool {
	switch {
	case c.isServers(u):
		return true
	case len(c.origins) > 0:
		return false
	}
	c.mu.Lock()
	current, failed := c.current, c.failed
	c.mu.Unlock()
	return current != nil || c.clock.since(failed) >= metadataPause
}

// isServers reports whether u is on an origin of the server's, as far as the
// configuration tells.
func (c *Client) isServers(u *url.URL) bool {
	return endpoint.Origin(u) == c.origin || hasOrigin(c.origins, u)
}

// isIssuers reports whether u is on the origin of the issuer or of one of the endpoints in
// its metadata.
func (c *Client) isIssuers(u *url.URL) bool {
	origin := endpoint.Origin(u)
	if origin == c.origin {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current != nil && slices.Contains(c.current.origins, origin)
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
