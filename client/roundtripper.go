package client

import (
	"errors"
	"mime"
	"net/http"
	"net/url"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// roundTripper sends each request through the transport it is for: that of the
// authorization server, which is found before the first request that may be for
// it, that of a resource, or past both.
type roundTripper struct{ client *Client }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.client.send(req)
	switch {
	case errors.Is(err, transport.ErrClosed):
		err = ErrClosed
	case req.Context().Err() == nil: // an attestation was waited for, perhaps
		err = r.client.closedOr(err)
	}
	return resp, err
}

func (c *Client) send(req *http.Request) (*http.Response, error) {
	if req.Response != nil && (c.authenticates(req) || c.authenticates(req.Response.Request)) {
		closeBody(req)
		return nil, transport.ErrRedirect
	}
	s, fresh := c.known()
	if !fresh && mayBeEndpoint(req) && c.mayHaveEndpoint(req.URL) {
		found, err := c.server(req.Context())
		// Without metadata only the issuer's own origin and the pinned ones are
		// known to be the server's. A request for what was its endpoint never
		// goes out bare.
		if err != nil && (c.isServers(req.URL) || s != nil && s.transport.Authenticates(req)) {
			closeBody(req)
			return nil, err
		}
		if err == nil {
			s = found
		}
	}
	if s != nil && s.transport.Authenticates(req) {
		return s.transport.RoundTrip(req)
	}
	if resource := c.resource(req); resource != nil {
		return c.toResource(req, resource)
	}
	if s != nil {
		return s.transport.RoundTrip(req)
	}
	return c.bystander.RoundTrip(req)
}

// CloseIdleConnections is for http.Client's method of that name.
func (r roundTripper) CloseIdleConnections() { r.client.bystander.CloseIdleConnections() }

// authenticates reports whether req is one that gets credentials.
func (c *Client) authenticates(req *http.Request) bool {
	if req == nil {
		return false
	}
	s, _ := c.known()
	return s != nil && s.transport.Authenticates(req) || c.resource(req) != nil
}

// mayBeEndpoint reports whether a request looks like one that a client
// authenticates with. Only such a request is worth asking for metadata: a
// program may send everything it sends through this client.
func mayBeEndpoint(req *http.Request) bool {
	mediaType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	return req.Method == http.MethodPost && req.URL != nil && mediaType == "application/x-www-form-urlencoded"
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
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.current != nil || c.clock.since(c.failed) >= metadataPause
	}
}

// isServers reports whether u is on an origin of the server's, as far as the
// configuration tells.
func (c *Client) isServers(u *url.URL) bool {
	return endpoint.Origin(u) == c.origin || hasOrigin(c.origins, u)
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
