// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/internal/redial"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// ErrClosed is returned by a Client after Close.
var ErrClosed = errors.New("client: closed")

// A Client is one client instance at one authorization server. It is safe for
// concurrent use.
type Client struct {
	issuer, origin string
	clientID       string
	key            keystore.Key
	thumbprint     string       // of key
	dpopKey        keystore.Key // nil: no DPoP proofs beside PoP JWTs
	alg, dpopAlg   string       // of the keys; "" for none
	dpop           DPoP
	method         transport.Method
	profile        transport.Profile
	anyKey         bool // refresh tokens of other keys are taken
	bindBody       bool
	origins        []string

	attestations *attestations
	transport    *transport.Transport // for all requests
	base         http.RoundTripper    // for metadata; the clock learns from it
	log          *slog.Logger
	clock        *clock

	ctx          context.Context // ends with Close; only for what outlives a caller's own context
	close        context.CancelCauseFunc
	discoveries  *flight.Group[*server]
	descriptions *flight.Group[struct{}] // of resources
	grants       *flight.Group[*oauth2.Token]

	tokenRenewals *flight.Group[*oauth2.Token] // in the background

	// mu guards what is known, and is held over the making of the transport's table.
	mu        sync.Mutex
	current   *server   // nil: not known yet
	renewal   renewal   // of current
	failed    time.Time // when metadata was last asked for in vain, with none known; zero: never
	resources []*resource
	tokens    tokens
}

// New checks cfg, opens the key (or creates it; see Config.Store), and returns
// a Client. It sends nothing and does not keep ctx. Errors of the key match the
// sentinels of package keystore.
func New(ctx context.Context, cfg Config) (*Client, error) {
	issuer, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if cfg.Cache, err = prepared(cfg.Cache); err != nil {
		return nil, err
	}
	c := &Client{
		issuer:   cfg.Issuer,
		origin:   endpoint.Origin(issuer),
		clientID: cfg.ClientID,
		bindBody: cfg.BindBody,
		origins:  slices.Clone(cfg.Origins),
		method:   cfg.Method,
		dpop:     cfg.DPoP,
		profile:  cfg.Profile,
		anyKey:   cfg.Deviations.RefreshTokensOfAnyKey,
		log:      newLogger(cfg.Logger),
	}
	c.ctx, c.close = context.WithCancelCause(context.Background())
	c.discoveries = flight.NewGroup[*server](c.ctx, discoverTimeout, true)
	c.descriptions = flight.NewGroup[struct{}](c.ctx, discoverTimeout, true)
	c.grants = flight.NewGroup[*oauth2.Token](c.ctx, tokenTimeout, true)
	c.tokenRenewals = flight.NewGroup[*oauth2.Token](c.ctx, tokenTimeout, true)
	base := cfg.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if cfg.Timekeeper == nil {
		c.clock = newClock(cfg.Clock, c.log)
	} else {
		c.clock = cfg.Timekeeper.clock
		if plain, ok := base.(*http.Transport); ok && cfg.Base == nil {
			base = cfg.Timekeeper.over(plain)
		}
	}
	// One server's time is enough, and of several the resources' counts less.
	c.base = observer{redial.Over(base), c.clock, c.isIssuers}
	if err := c.openKeys(ctx, cfg); err != nil {
		return nil, err
	}
	c.attestations = c.newAttestations(cfg)
	if c.transport, err = transport.New(transport.Config{
		Key:          c.key,
		DPoPKey:      c.dpopKey,
		ClientID:     c.clientID,
		Attestations: c.attestations,
		BindBody:     cfg.BindBody,
		Claims:       cfg.Claims,
		SignAhead:    cfg.SignAhead,
		Base:         c.base,
		Logger:       c.log,
		Trace:        cfg.Trace.requests(),
		Clock:        c.clock.now,
	}); err != nil {
		return nil, err
	}
	if c.resources, err = c.newResources(cfg.Resources); err != nil {
		return nil, err
	}
	var given *server
	if cfg.Metadata != nil {
		if given, err = c.newServer(cfg.Metadata.clone()); err != nil {
			return nil, err
		}
		c.renewal.never = true
		c.logForeign(ctx, given)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.retable(given); err != nil {
		return nil, err
	}
	return c, nil
}

// openKeys opens the Client Instance Key, and makes the DPoP key.
func (c *Client) openKeys(ctx context.Context, cfg Config) (err error) {
	if c.key, err = openKey(ctx, cfg); err != nil {
		return err
	}
	if c.thumbprint, err = keystore.Thumbprint(c.key.Public()); err != nil {
		return fmt.Errorf("client: key: %w", err)
	}
	if c.dpopKey, err = cfg.DPoP.key(c.key); err != nil {
		return err
	}
	if c.alg = c.key.Algorithm(); c.dpopKey != nil {
		c.dpopAlg = c.dpopKey.Algorithm()
	}
	return nil
}

// HTTPClient returns an HTTP client that authenticates requests to the issuer's
// endpoints. To requests for Config.Resources it adds the proofs that the resource wants.
// The caller puts the access token on such a request, or uses ResourceClient, which does.
// All other requests pass through; only header fields with the attestation's two names
// are removed. The result is an ordinary *http.Client: set its Timeout or Jar, or wrap
// its Transport. Each call returns another *http.Client over the same state.
//
// As long as the issuer's metadata is not known, the POST of a form may be for an
// endpoint. Such a request waits for the metadata, 30 seconds at the most. After a
// failure, forms to other origins than the issuer's pass through without waiting, for 5
// minutes. With Config.Origins only forms to the issuer's origin and to Origins wait;
// without metadata they fail.
//
// A redirect away from an authenticated request fails with an error that
// matches transport.ErrRedirect.
func (c *Client) HTTPClient() *http.Client {
	return &http.Client{Transport: roundTripper{c}}
}

// String names issuer, client and key, and nothing that is secret.
func (c *Client) String() string {
	return fmt.Sprintf("client.Client{%s at %s, key %s}", c.clientID, c.issuer, c.thumbprint)
}

// GoString is String.
func (c *Client) GoString() string { return c.String() }

// Key returns the Client Instance Key.
func (c *Client) Key() keystore.Key { return c.key }

// Close ends what the Client does in the background. After that, calls that need the
// server's metadata or a token fail with ErrClosed, and so do requests that would be
// authenticated. Close leaves the Store open. Close may be called more than once.
func (c *Client) Close() error {
	c.close(ErrClosed)
	return c.transport.Close()
}

// closedOr returns ErrClosed for work that Close has ended, else err.
func (c *Client) closedOr(err error) error {
	if c.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ErrClosed
	}
	return err
}

// waited returns the error of a wait for shared work on behalf of an issuer or resource:
// one without a result tells how far the work had come, first if it does not say.
func (c *Client) waited(audience string, first transport.Step, err error) error {
	gone, isGone := err.(*flight.Gone) // not that of a wait further in
	if !isGone {
		return c.closedOr(err)
	}
	step := cmp.Or(transport.Step(gone.Step), first)
	return &transport.Error{Audience: audience, Thumbprint: c.thumbprint, Step: step, Send: gone.Send, Err: gone.Err}
}
