package client

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"golang.org/x/oauth2"

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

// server is the authorization server as its metadata describes it.
type server struct {
	metadata  *Metadata
	method    transport.Method
	transport *transport.Transport
}

// server returns the authorization server, after fetching its metadata if that
// is missing or old.
func (c *Client) server(ctx context.Context) (*server, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, ErrClosed
	}
	s, fresh := c.known()
	if fresh {
		return s, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("client: metadata: %w", err)
	}
	discovered := c.flight.DoChan("metadata", func() (any, error) {
		ctx, cancel := c.detach(ctx, discoverTimeout)
		defer cancel()
		return c.discover(ctx)
	})
	if s != nil {
		return s, nil // old metadata does until the new is there
	}
	s, err := await[*server](ctx, "metadata", discovered)
	if ctx.Err() != nil {
		// It may be stalled: whoever comes next does not wait for it, too.
		c.flight.Forget("metadata")
	}
	return s, c.closedOr(err)
}

// known returns the server as far as it is known, and whether that is enough.
func (c *Client) known() (s *server, fresh bool) {
	c.mu.Lock()
	s, from := c.current, c.metadataFrom
	c.mu.Unlock()
	return s, s != nil && (from.IsZero() || c.clock.since(from) < metadataLifetime)
}

func (c *Client) discover(ctx context.Context) (*server, error) {
	old, fresh := c.known()
	if fresh {
		return old, nil // another caller's request was just before ours
	}
	found, err := c.findServer(ctx, old)
	from := c.clock.now() // which the answer may have corrected
	if err != nil {
		if old == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.failed = from
			return nil, err
		}
		c.log.WarnContext(ctx, "client: metadata not renewed, the old is used on", "issuer", c.issuer, "error", err)
		found, from = old, from.Add(metadataPause-metadataLifetime)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The transport before is not closed: requests may still wait for it.
	c.current, c.metadataFrom = found, from
	if c.ctx.Err() != nil {
		found.transport.Close() // which Close may not have seen
	}
	return found, nil
}

// findServer fetches the metadata. If it is what it was, so is the server, with
// its challenge.
func (c *Client) findServer(ctx context.Context, old *server) (*server, error) {
	metadata, err := c.fetchServer(ctx)
	if err != nil {
		return nil, err
	}
	if old != nil && reflect.DeepEqual(old.metadata, metadata) {
		return old, nil
	}
	return c.newServer(metadata)
}

// newServer makes the transport for checked metadata.
func (c *Client) newServer(metadata *Metadata) (*server, error) {
	method, err := metadata.method(c.method, c.bindBody)
	if err == nil {
		err = metadata.checkAlgorithms(method, c.key, c.dpopKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrMetadata, c.issuer, err)
	}
	if names := metadata.foreign(); len(names) > 0 {
		c.log.Info("client: the server has endpoints on other origins than its issuer's", "issuer", c.issuer, "endpoints", names)
	}
	var endpoints []string
	for _, url := range metadata.authenticated() {
		if url != "" {
			endpoints = append(endpoints, url)
		}
	}
	t, err := transport.New(transport.Config{
		Key:          c.key,
		Queue:        c.queue,
		DPoPKey:      c.dpopKey,
		ClientID:     c.clientID,
		Attestations: issuerAttestations{c.attestations, metadata.AttestationSigningAlgs},
		Servers: []transport.Server{{
			Issuer:            metadata.Issuer,
			Endpoints:         endpoints,
			ChallengeEndpoint: metadata.ChallengeEndpoint,
			Method:            method,
			Profile:           c.profile,
			DPoPEndpoints:     metadata.dpopEndpoints(),
		}},
		BindBody: c.bindBody,
		Claims:   c.claims,

		Base:   c.serverBase,
		Logger: c.log,
		Trace:  c.trace,
		Clock:  c.clock.now,
	})
	if err != nil {
		return nil, err
	}
	return &server{metadata, method, t}, nil
}

// Endpoint returns the server's endpoints for golang.org/x/oauth2, from its
// metadata, which is fetched if need be. AuthStyle is AuthStyleInParams, which
// sends client_id in the body and nothing else: the client authenticates in the
// header fields that HTTPClient adds.
func (c *Client) Endpoint(ctx context.Context) (oauth2.Endpoint, error) {
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

// Metadata returns the server's metadata as this Client has checked it, which is
// fetched if need be: its endpoints, for what golang.org/x/oauth2 has no room
// for (pushed authorization requests, CIBA, introspection, revocation). An
// endpoint that the server does not have is "". The copy is the caller's.
//
// Errors match [ErrMetadata] (its *[transport.Error], if there is one, tells
// whether to try again), [ErrClosed] or ctx.Err().
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	s, err := c.server(ctx)
	if err != nil {
		return Metadata{}, err
	}
	return *s.metadata.clone(), nil
}
