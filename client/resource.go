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

// resourceMetadata is what a Client uses of a protected resource's metadata
// (RFC 9728, section 2; draft, "Authorization Server Metadata", which has these
// for resources too).
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ChallengeEndpoint    string   `json:"challenge_endpoint"`

	PoPMethods                []string `json:"client_attestation_pop_methods_supported"`
	AttestationSigningAlgs    []string `json:"client_attestation_signing_alg_values_supported"`
	AttestationPoPSigningAlgs []string `json:"client_attestation_pop_signing_alg_values_supported"`
	DPoPSigningAlgs           []string `json:"dpop_signing_alg_values_supported"`
	DPoPRequired              bool     `json:"dpop_bound_access_tokens_required"`
}

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
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
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
	r.mu.Lock()
	t, old, bound, first := r.transport, r.metadata, r.bound, r.asked.IsZero() // t stays if metadata is what it was
	r.mu.Unlock()

	metadata, err := c.resourceMetadata(ctx, r.identifier, place)
	if err == nil && metadata != nil && !reflect.DeepEqual(old, metadata) {
		t, err = c.newResourceTransport(metadata, bound)
	}
	asked := c.clock.now()
	if err != nil {
		err = c.metadataError(r.identifier, fmt.Errorf("from %s: %w", place, err))
		if first {
			return nil, err
		}
		c.log.WarnContext(ctx, "client: resource metadata not renewed, what is known is used on", "resource", r.identifier, "error", err)
		asked = asked.Add(metadataPause - metadataLifetime)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = asked
	if err == nil {
		r.described = metadata != nil
	}
	if err == nil && metadata != nil {
		r.transport, r.metadata, r.bound = t, metadata, bound
	}
	if c.ctx.Err() != nil {
		r.transport.Close() // which Close may not have seen
	}
	return r.transport, nil
}

// resourceMetadata returns the metadata at place, nil if there is none: a
// resource need not have any, and many answer 401 to every path they do not
// know.
func (c *Client) resourceMetadata(ctx context.Context, identifier, place string) (*resourceMetadata, error) {
	var metadata resourceMetadata
	err := c.fetchMetadata(ctx, c.base, place, &metadata)
	var status *statusError
	if errors.As(err, &status) && !status.passes() {
		return nil, nil
	}
	if err == nil {
		err = c.checkResource(ctx, &metadata, identifier)
	}
	if err != nil {
		return nil, err
	}
	return &metadata, nil
}

// checkResource refuses metadata that is not the resource's own (RFC 9728,
// section 3.3) or asks for what this Client is not set up for.
func (c *Client) checkResource(ctx context.Context, m *resourceMetadata, identifier string) error {
	if m.Resource != identifier {
		return fmt.Errorf("it is for resource %.200q, configured is %q: they must be identical", m.Resource, identifier)
	}
	own, err := endpoint.Parse(identifier)
	if err != nil {
		return err
	}
	if at, err := url.Parse(m.ChallengeEndpoint); m.ChallengeEndpoint != "" && (err != nil || own.Scheme == "https" && at.Scheme != "https") {
		return errors.New("its challenge_endpoint is not https")
	}
	if m.DPoPRequired && c.dpopKey == nil {
		method, err := c.settledMethod(ctx)
		if err != nil {
			return err
		}
		if method != transport.MethodDPoP {
			return errors.New("it takes DPoP-bound tokens only: set Config.DPoP")
		}
	}
	if len(m.AuthorizationServers) > 0 && !slices.Contains(m.AuthorizationServers, c.issuer) {
		c.log.WarnContext(ctx, "client: the resource does not name this issuer among its authorization servers", "resource", identifier, "issuer", c.issuer)
	}
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
	method, err := as.method(c.method)
	if err == nil {
		err = checkBinding(method, c.bindBody)
	}
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
