// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/instancekey/instancekey/internal/authchallenge"
	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/transport"
)

// resource is a protected resource that the Client authenticates to. Client.mu guards
// what changes.
type resource struct {
	Resource
	wellKnown string

	metadata  *resourceMetadata // the last there was, or the identifier alone
	described bool              // the last answer was that there is metadata
	asked     bool              // there was an answer
	renewal   renewal
	unfit     error // why this Client cannot send requests to it; nil: it can
	attested  bool  // requests for it carry an attestation
}

func (c *Client) newResources(configured []Resource) ([]*resource, error) {
	var resources []*resource
	for _, given := range configured {
		u, err := parseResource(given.Identifier)
		if err != nil {
			return nil, err
		}
		r := &resource{Resource: given, wellKnown: resourceWellKnown(u), metadata: &resourceMetadata{Resource: given.Identifier}}
		if _, err := c.resourceEntry(r, r.metadata, c.method); err != nil {
			return nil, err
		}
		resources = append(resources, r)
	}
	return resources, nil
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

// resource returns the resource of that identifier, nil if there is none.
func (c *Client) resource(identifier string) *resource {
	for _, r := range c.resources {
		if r.Identifier == identifier {
			return r
		}
	}
	return nil
}

// ready sees to it that the table has what r's metadata says, after fetching that if it
// is missing or old. A resource need not have any.
func (c *Client) ready(ctx context.Context, r *resource) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	// DPoP proofs at a resource are by the key that tokens are bound to (RFC 9449,
	// section 7.1). With another key than the Client Instance Key for them, that is
	// settled by the method at the server, which has to be known first.
	if c.dpop == DPoPOwnKey {
		if _, err := c.settledMethod(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	asked, renewal := r.asked, r.renewal
	c.mu.Unlock()
	switch {
	case r.Attestation == AttestNever: // its metadata has nothing to say
	case !asked:
		if err := c.describe(ctx, r, r.wellKnown); err != nil {
			return err
		}
	case c.clock.since(renewal.from) >= renewal.length:
		c.descriptions.Begin(ctx, r.Identifier, c.description(r, r.wellKnown)) // what is known does until then
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.unfit != nil {
		return fmt.Errorf("%w of %s: %w", ErrMetadata, r.Identifier, r.unfit)
	}
	return nil
}

// refused is told of a 401 of a resource.
func (c *Client) refused(req *http.Request, r *resource, resp *http.Response) {
	c.followMetadata(req, r, resp)
	c.mu.Lock()
	attested := r.attested
	c.mu.Unlock()
	switch code, _ := transport.Refused(resp); code {
	case "use_attestation_challenge", "use_fresh_attestation", badAttestation:
		if !attested {
			c.log.WarnContext(req.Context(), "client: a resource asks for an attestation, which its metadata does not: set its Attestation to AttestAlways", "resource", r.Identifier, "code", code)
		}
	}
}

// followMetadata fetches the metadata that a resource without any names in its refusal.
// It serves the requests after this one.
func (c *Client) followMetadata(req *http.Request, r *resource, resp *http.Response) {
	place := c.metadataIn(resp, r)
	if place == "" {
		return
	}
	if err := c.describe(req.Context(), r, place); err != nil {
		c.log.WarnContext(req.Context(), "client: metadata named by a resource not used", "resource", r.Identifier, "error", err)
	}
}

// metadataIn returns the place of the metadata that a resource without any at
// its well-known place names in its refusal (RFC 9728, section 5.1), if that
// place is on the resource's own origin.
func (c *Client) metadataIn(resp *http.Response, r *resource) string {
	c.mu.Lock()
	described := r.described
	c.mu.Unlock()
	if described || r.Attestation == AttestNever {
		return ""
	}
	own, _ := url.Parse(r.Identifier)
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

// describe fetches the metadata of r from place, once for all who wait.
func (c *Client) describe(ctx context.Context, r *resource, place string) error {
	name := r.Identifier
	if place != r.wellKnown {
		name += " " + place
	}
	_, err := c.descriptions.Do(ctx, name, c.description(r, place))
	return c.waited(r.Identifier, transport.StepMetadata, err)
}

func (c *Client) description(r *resource, place string) flight.Work[struct{}] {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, c.fetchResource(ctx, r, place) }
}

func (c *Client) fetchResource(ctx context.Context, r *resource, place string) error {
	metadata, certain, err := c.resourceMetadata(ctx, r.Identifier, place)
	now := c.clock.now()
	if err == nil {
		err = c.redescribe(r, metadata, now, certain)
	}
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	err = c.metadataError(r.Identifier, fmt.Errorf("from %s: %w", place, err))
	c.mu.Lock()
	asked := r.asked
	if asked {
		r.renewal = r.renewal.failed(now)
	}
	c.mu.Unlock()
	if !asked {
		return err
	}
	c.log.WarnContext(ctx, "client: resource metadata not renewed, what is known is used on", "resource", r.Identifier, "error", err)
	return nil
}

// redescribe takes over new metadata, nil if the resource has none.
func (c *Client) redescribe(r *resource, metadata *resourceMetadata, now time.Time, certain bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if metadata != nil {
		before := r.metadata
		if _, err := c.resourceEntry(r, metadata, c.methodOf(c.current)); err != nil {
			return err
		}
		r.metadata = metadata
		if err := c.retable(c.current); err != nil {
			r.metadata = before
			return err
		}
	}
	r.asked, r.described = true, metadata != nil
	r.renewal = r.renewal.next(now, certain)
	return nil
}

// resourceEntry makes the table's entry for a resource that has this metadata. bound is
// the method at the authorization server, by which tokens are bound.
func (c *Client) resourceEntry(r *resource, m *resourceMetadata, bound transport.Method) (transport.Resource, error) {
	as := Metadata{PoPMethods: m.PoPMethods, AttestationPoPSigningAlgs: m.AttestationPoPSigningAlgs, DPoPSigningAlgs: m.DPoPSigningAlgs}
	_, offered := as.offered()
	unattested := r.Attestation == AttestNever || r.Attestation == AttestListed && len(offered) == 0
	if unattested {
		as.AttestationPoPSigningAlgs = nil // no PoP JWT is sent, so nothing has to fit
	}
	if len(offered) == 0 {
		as.PoPMethods = nil // the configuration has the say
	}
	method, err := as.method(c.method, c.bindBody)
	if err != nil {
		return transport.Resource{}, err
	}
	if method == transport.MethodDPoP && !unattested && c.dpop == DPoPOwnKey && bound != transport.MethodDPoP {
		return transport.Resource{}, errors.New("it takes the Client Instance Key's DPoP proofs only: set DPoPInstanceKey")
	}
	tokens := c.dpopAlg
	if bound == transport.MethodDPoP {
		tokens = c.alg
	}
	if unattested {
		method = transport.MethodPoP // of the two the one that bearer tokens get no proof by
	}
	if err := as.checkAlgorithms(method, c.alg, tokens); err != nil {
		return transport.Resource{}, err
	}
	return transport.Resource{
		Identifier:             m.Resource,
		ChallengeEndpoint:      m.ChallengeEndpoint,
		Method:                 method,
		Unattested:             unattested,
		InstanceTokens:         bound == transport.MethodDPoP,
		AttestationSigningAlgs: m.AttestationSigningAlgs,
	}, nil
}
