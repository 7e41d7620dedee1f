package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/instancekey/instancekey/internal/authchallenge"
	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// resource is a protected resource that the Client authenticates to.
type resource struct {
	identifier string
	wellKnown  string

	mu        sync.Mutex
	transport *transport.Transport // from the start: it also tells which requests are for the resource
	metadata  *resourceMetadata    // that transport is made from: the last there was, or the identifier alone
	bound     transport.Method     // at the server, that transport is made for; see Client.rebind
	described bool                 // the last answer was that there is metadata
	asked     time.Time            // when metadata was last asked for, earlier if that failed; zero: no answer yet
}

func (c *Client) newResources(identifiers []string) ([]*resource, error) {
	var resources []*resource
	for _, identifier := range identifiers {
		u, err := parseResource(identifier)
		if err != nil {
			return nil, err
		}
		r := &resource{identifier: identifier, wellKnown: resourceWellKnown(u), metadata: &resourceMetadata{Resource: identifier}, bound: c.method}
		if r.transport, err = c.newResourceTransport(r.metadata, r.bound); err != nil {
			return nil, err
		}
		resources = append(resources, r)
	}
	slices.SortStableFunc(resources, func(a, b *resource) int { return len(b.identifier) - len(a.identifier) })
	return resources, nil
}

func parseResource(identifier string) (*url.URL, error) {
	u, err := endpoint.ParseIdentifier(identifier)
	if err != nil {
		return nil, fmt.Errorf("client: resource identifier %w", err)
	}
	return u, nil
}

// resourceWellKnown inserts the well-known path between host and path (RFC
// 9728, section 3.1).
func resourceWellKnown(u *url.URL) string {
	path := u.EscapedPath()
	if path == "/" {
		path = ""
	}
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-protected-resource" + path
}

// resource returns the resource that req is for, nil if it is for none.
func (c *Client) resource(req *http.Request) *resource {
	for _, r := range c.resources {
		if t, _ := r.current(); t.Authenticates(req) {
			return r
		}
	}
	return nil
}

func (r *resource) current() (t *transport.Transport, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.transport, r.asked
}

// ready returns the transport of r, after fetching the resource's metadata if
// that is missing or old. A resource need not have any.
func (c *Client) ready(ctx context.Context, r *resource) (*transport.Transport, error) {
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if err := c.rebind(ctx, r); err != nil {
		return nil, err
	}
	t, asked := r.current()
	switch {
	case asked.IsZero():
		return c.describe(ctx, r, r.wellKnown)
	case c.clock.since(asked) > metadataLifetime:
		c.startDescribing(ctx, r, r.wellKnown) // what is known does until then
	}
	return t, nil
}

// rebind sees to it that DPoP proofs at r are by the key that tokens are bound to
// (RFC 9449, section 7.1). With another key than the Client Instance Key for
// them, that is settled by the method at the server, which has to be known
// first, and which new metadata may change.
func (c *Client) rebind(ctx context.Context, r *resource) error {
	if c.dpop != DPoPOwnKey {
		return nil // the one key there is
	}
	bound, err := c.settledMethod(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bound == bound {
		return nil
	}
	t, err := c.newResourceTransport(r.metadata, bound)
	if err != nil {
		return fmt.Errorf("%w of %s: %w", ErrMetadata, r.identifier, err)
	}
	r.transport, r.bound = t, bound
	return nil
}

// toResource sends a request to its resource.
func (c *Client) toResource(req *http.Request, r *resource) (*http.Response, error) {
	t, err := c.ready(req.Context(), r)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	if place := r.metadataIn(resp); place != "" {
		// It serves the requests after this one.
		if _, err := c.describe(req.Context(), r, place); err != nil {
			c.log.WarnContext(req.Context(), "client: metadata named by a resource not used", "resource", r.identifier, "error", err)
		}
	}
	return resp, nil
}

// metadataIn returns the place of the metadata that a resource without any at
// its well-known place names in its refusal (RFC 9728, section 5.1), if that
// place is on the resource's own origin.
func (r *resource) metadataIn(resp *http.Response) string {
	r.mu.Lock()
	described := r.described
	r.mu.Unlock()
	if described {
		return ""
	}
	own, _ := url.Parse(r.identifier)
	for _, challenge := range authchallenge.Parse(resp.Header) {
		place := challenge.Params["resource_metadata"]
		if place == "" || place == r.wellKnown {
			continue
		}
		if u, err := endpoint.Parse(place); err == nil && endpoint.Origin(u) == endpoint.Origin(own) {
			return place
		}
	}
	return ""
}

// describe fetches the metadata of r from place, once for all who wait, and
// returns the transport made from it.
func (c *Client) describe(ctx context.Context, r *resource, place string) (*transport.Transport, error) {
	t, err := await[*transport.Transport](ctx, "resource metadata", c.startDescribing(ctx, r, place))
	return t, c.closedOr(err)
}

func (c *Client) startDescribing(ctx context.Context, r *resource, place string) <-chan singleflight.Result {
	return c.flight.DoChan("resource "+r.identifier+" "+place, func() (any, error) {
		ctx, cancel := c.detach(ctx, discoverTimeout)
		defer cancel()
		return c.fetchResource(ctx, r, place)
	})
}

func (c *Client) fetchResource(ctx context.Context, r *resource, place string) (*transport.Transport, error) {
	metadata, err := c.resourceMetadata(ctx, r.identifier, place)
	asked := c.clock.now()
	if err == nil {
		err = c.redescribe(r, metadata)
	}
	t, before := r.current()
	if err != nil {
		err = c.metadataError(r.identifier, fmt.Errorf("from %s: %w", place, err))
		if before.IsZero() {
			return nil, err
		}
		c.log.WarnContext(ctx, "client: resource metadata not renewed, what is known is used on", "resource", r.identifier, "error", err)
		asked = asked.Add(metadataPause - metadataLifetime)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = asked
	if c.ctx.Err() != nil {
		t.Close() // which Close may not have seen
	}
	return t, nil
}

// redescribe makes the transport for metadata, nil if the resource has none, unless
// that is what it was.
func (c *Client) redescribe(r *resource, metadata *resourceMetadata) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if metadata != nil && !reflect.DeepEqual(r.metadata, metadata) {
		t, err := c.newResourceTransport(metadata, r.bound)
		if err != nil {
			return err
		}
		r.transport, r.metadata = t, metadata
	}
	r.described = metadata != nil
	return nil
}

// newResourceTransport makes the transport for a resource. bound is the method
// at the authorization server, by which tokens are bound.
func (c *Client) newResourceTransport(m *resourceMetadata, bound transport.Method) (*transport.Transport, error) {
	as := Metadata{PoPMethods: m.PoPMethods, AttestationPoPSigningAlgs: m.AttestationPoPSigningAlgs, DPoPSigningAlgs: m.DPoPSigningAlgs}
	_, offered := as.offered()
	unattested := len(m.PoPMethods) > 0 && len(offered) == 0
	if unattested {
		as.PoPMethods = nil // no attestation is sent, so nothing has to fit
	}
	method, err := as.method(c.method, c.bindBody)
	if err != nil {
		return nil, err
	}
	if method == transport.MethodDPoP && !unattested && c.dpop == DPoPOwnKey && bound != transport.MethodDPoP {
		return nil, errors.New("it takes the Client Instance Key's DPoP proofs only: set DPoPInstanceKey")
	}
	if err := as.checkAlgorithms(method, c.key, c.tokenKey(bound)); err != nil {
		return nil, err
	}
	return transport.New(transport.Config{
		Key:          c.key,
		Queue:        c.queue,
		DPoPKey:      c.tokenKey(bound),
		Attestations: issuerAttestations{c.attestations, m.AttestationSigningAlgs},
		Resources: []transport.Resource{{
			Identifier:        m.Resource,
			ChallengeEndpoint: m.ChallengeEndpoint,
			Method:            method,
			Unattested:        unattested,
		}},
		BindBody: c.bindBody,
		Claims:   c.claims,

		Base:   c.base,
		Logger: c.log,
		Trace:  c.trace,
		Clock:  c.clock.now,
	})
}
