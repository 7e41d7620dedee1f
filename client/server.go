// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/transport"
)

const (
	// discoverTimeout bounds a metadata request, which several callers may
	// wait for and which therefore ends with none of them.
	discoverTimeout = 30 * time.Second

	// metadataLifetime is how long metadata is used without asking again.
	metadataLifetime = 24 * time.Hour

	// metadataPause is how long metadata that could not be renewed is used on
	// before the next try, and how long requests to others do not wait for
	// metadata after it could not be had.
	metadataPause = 5 * time.Minute
)

// server is the authorization server as its metadata describes it. It does not
// change.
type server struct {
	metadata *Metadata
	second   bool // the metadata is from the second place where it may be
	method   transport.Method
	origins  []string // the issuer's and its endpoints'
	entry    transport.Server
}

// server returns the authorization server, after fetching its metadata if that
// is missing or old.
func (c *Client) server(ctx context.Context) (*server, error) {
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	s, fresh := c.known()
	if fresh {
		return s, nil
	}
	if s != nil { // old metadata does until the new is there
		c.discoveries.Begin(ctx, "", c.discover)
		return s, nil
	}
	flight.At(ctx, string(transport.StepMetadata), 0)
	s, err := c.discoveries.Do(ctx, "", c.discover)
	return s, c.waited(c.issuer, transport.StepMetadata, err)
}

// known returns the server as far as it is known, and whether that is enough.
func (c *Client) known() (s *server, fresh bool) {
	c.mu.Lock()
	s, renewal := c.current, c.renewal
	c.mu.Unlock()
	return s, s != nil && (renewal.never || c.clock.since(renewal.from) < renewal.length)
}

// discover fetches the metadata and puts it in place.
func (c *Client) discover(ctx context.Context) (*server, error) {
	old, fresh := c.known()
	if fresh {
		return old, nil // another caller's request was just before ours
	}
	found, err := c.fetchServer(ctx)
	now := c.clock.now() // which the answer may have corrected
	if err == nil {
		err = c.settle(found, now)
	}
	switch {
	case err == nil:
		c.logForeign(ctx, found)
		return found, nil
	case c.ctx.Err() != nil || errors.Is(context.Cause(ctx), flight.ErrReplaced):
		return nil, err // another attempt has taken its place, or the Client is closed
	case old == nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed = now
		return nil, err
	}
	c.log.WarnContext(ctx, "client: metadata not renewed, the old is used on", "issuer", c.issuer, "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewal = c.renewal.failed(now)
	return old, nil
}

// settle puts a server in place.
func (c *Client) settle(s *server, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.retable(s); err != nil {
		return fmt.Errorf("%w of %s: %w", ErrMetadata, c.issuer, err)
	}
	c.renewal = c.renewal.next(now, !s.second)
	return nil
}

// retable gives the transport the table of s, which is nil while none is known, and of
// the resources as they are. c.mu is held.
func (c *Client) retable(s *server) error {
	var servers []transport.Server
	method := c.method
	if s != nil {
		servers, method = []transport.Server{s.entry}, s.method
	}
	var resources []transport.Resource
	for _, r := range c.resources {
		entry, err := c.resourceEntry(r, r.metadata, method)
		if r.unfit = err; err != nil {
			// Requests for it fail before they are sent. It keeps its place, so that
			// none goes out as one for nobody.
			entry = transport.Resource{Identifier: r.Identifier, Unattested: true}
		}
		r.attested = !entry.Unattested
		resources = append(resources, entry)
	}
	if err := c.transport.Update(servers, resources); err != nil {
		return err
	}
	c.current = s
	return nil
}

// newServer checks that this Client can authenticate by that metadata.
func (c *Client) newServer(metadata *Metadata) (*server, error) {
	method, err := metadata.method(c.method, c.bindBody)
	if err == nil {
		err = metadata.checkAlgorithms(method, c.alg, c.dpopAlg)
	}
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrMetadata, c.issuer, err)
	}
	s := &server{metadata: metadata, method: method, origins: []string{c.origin}}
	endpoints := make(map[string]string) // by location: one may have two names
	for _, raw := range metadata.authenticated() {
		if u, err := url.Parse(raw); raw != "" && err == nil {
			s.origins = append(s.origins, endpoint.Origin(u))
			endpoints[endpoint.Location(u)] = raw
		}
	}
	var bound []string
	for _, raw := range metadata.dpopEndpoints() {
		if u, err := url.Parse(raw); err == nil {
			bound = append(bound, endpoints[endpoint.Location(u)])
		}
	}
	s.entry = transport.Server{
		Issuer:                 metadata.Issuer,
		Endpoints:              slices.Sorted(maps.Values(endpoints)),
		ChallengeEndpoint:      metadata.ChallengeEndpoint,
		Method:                 method,
		Profile:                c.profile,
		DPoPEndpoints:          bound,
		AttestationSigningAlgs: metadata.AttestationSigningAlgs,
	}
	return s, nil
}

func (c *Client) logForeign(ctx context.Context, s *server) {
	if names := s.metadata.foreign(); len(names) > 0 {
		c.log.InfoContext(ctx, "client: the server has endpoints on other origins than its issuer's", "issuer", c.issuer, "endpoints", names)
	}
}

// renewal is when metadata is asked for again: length after from, or never if it was
// given by the caller.
type renewal struct {
	from   time.Time
	length time.Duration
	doubt  time.Duration // the last length of one that was not certain
	never  bool
}

// next returns the renewal of what has come now. What may be a proxy's answer is asked
// about again soon, and less and less often if it stays.
func (r renewal) next(now time.Time, certain bool) renewal {
	if certain {
		return renewal{from: now, length: metadataLifetime}
	}
	doubt := min(max(2*r.doubt, metadataPause), metadataLifetime)
	return renewal{from: now, length: doubt, doubt: doubt}
}

// failed returns the renewal after one that failed now.
func (r renewal) failed(now time.Time) renewal {
	return renewal{from: now, length: metadataPause, doubt: r.doubt}
}

// Endpoint returns the server's endpoints for golang.org/x/oauth2. They are from the
// metadata, which Endpoint fetches if the Client does not have it. AuthStyle is
// AuthStyleInParams: the body has the client_id and no secret, since the header fields
// that HTTPClient adds authenticate the client. Errors are those of [Client.Metadata].
func (c *Client) Endpoint(ctx context.Context) (oauth2.Endpoint, error) {
	defer c.clock.tell(ctx)
	s, err := c.server(ctx)
	if err != nil {
		return oauth2.Endpoint{}, err
	}
	return oauth2.Endpoint{
		AuthURL:       s.metadata.AuthorizationEndpoint,
		DeviceAuthURL: s.metadata.DeviceAuthorizationEndpoint,
		TokenURL:      s.metadata.TokenEndpoint,
		AuthStyle:     oauth2.AuthStyleInParams,
	}, nil
}

// Metadata returns the server's metadata, which this Client has checked. It fetches the
// metadata if the Client does not have it. Its endpoints are for what golang.org/x/oauth2
// does not do: pushed authorization requests, CIBA, introspection, revocation. An
// endpoint that the server does not have is "". The result is a copy.
//
// Errors match [ErrMetadata] (its *[transport.Error], if there is one, tells
// whether to try again), [ErrClosed] or ctx.Err(), which is a *transport.Error, too.
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	defer c.clock.tell(ctx)
	s, err := c.server(ctx)
	if err != nil {
		return Metadata{}, err
	}
	return *s.metadata.clone(), nil
}
