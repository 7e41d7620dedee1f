// SPDX-License-Identifier: Apache-2.0

// Package client is one OAuth client instance at one authorization server,
// authenticated by OAuth 2.0 Attestation-Based Client Authentication
// (draft-ietf-oauth-attestation-based-client-auth-12).
//
// A [Client] binds together an issuer, a client_id, one Client Instance Key
// (package keystore, from a TPM by package tpm) and a way to get Client
// Attestations for that key (an [Attester]). It finds the server's endpoints by
// its metadata, gets and renews the attestation, and authenticates requests.
//
//	c, err := client.New(ctx, client.Config{
//		Issuer:   "https://as.example.com",
//		ClientID: "meter-firmware",
//		Store:    store, // from tpm.Open
//		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
//	})
//	token, err := c.Token(ctx, "readings.write")
//
// # Calling a resource
//
// The HTTP client of [Client.ResourceClient] puts tokens on the requests for
// Config.Resources, and gets another token when a resource refuses one:
//
//	resp, err := c.ResourceClient("readings.write").Post("https://api.example.com/readings", "application/json", body)
//
// A [Resource] says whether it wants the attestation as well.
//
// # Any other grant
//
// golang.org/x/oauth2 runs it, over the Client's HTTP client:
//
//	endpoint, err := c.Endpoint(ctx)
//	config := oauth2.Config{ClientID: "meter-firmware", Endpoint: endpoint}
//	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTPClient())
//	token, err := config.Exchange(ctx, code)
//
// Pushed authorization requests, CIBA, token exchange, introspection and
// revocation are plain form POSTs through the same HTTP client, to the endpoints
// in [Client.Metadata]; token exchange and CIBA's polls go to the token endpoint.
//
// Token sources of x/oauth2 keep the context that they are made with, and hold a lock
// while they fetch. So one stalled request holds up all who share the source.
// [Client.Token] has no such lock: each caller's context ends that caller's wait.
// [Client.TokenSource] is an x/oauth2 token source over it.
//
// # Failing early
//
// New sends nothing. A program that wants to know at its start whether issuer and
// attester can be reached and fit calls [Client.Metadata], and then [Client.Renew].
// [Client.Health] tells later how things stand.
//
// # Retry libraries
//
// A library that repeats requests, such as go-retryablehttp, goes around the Client's
// HTTP client. It never goes into Config.Base: there it would send one proof twice, and
// servers refuse that. The library should not repeat what cannot succeed, such as a
// request after a wrong PIN. [transport.Error] tells:
//
//	library.HTTPClient = c.HTTPClient()
//	library.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
//		var failed *transport.Error
//		if errors.As(err, &failed) && !failed.Temporary() {
//			return false, err
//		}
//		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
//	}
//
// A Store of package tpm sends the TPM each wrong PIN once, however often a library
// repeats the request. Other Stores may count each try toward a lockout.
//
// # What to store
//
// The Store keeps the key, and Config.Cache the attestation. The program keeps refresh
// tokens, by [StoredToken.Write], before it does anything else with them. Nothing else
// needs to outlive the process. None of it is of use on another device.
//
// # What waits, and how long
//
// The Client does work once that several callers wait for: metadata and challenges (30
// seconds at the most), tokens of Token (2 minutes), attestations (3 minutes). The work
// goes on for 10 seconds after the last caller has given up. If a request for metadata,
// for a challenge, or for a token of Token has no answer after 5 seconds, the Client
// makes a second request beside it. The Client replaces that second one every 10 seconds.
// So a connection that has died holds nobody up for long, and no more than two requests
// are open. The Client never makes a second request to an attester, or with a refresh
// token or an authorization code.
//
// A second request has a connection of its own if Config.Base is an *http.Transport, as
// it is by default, or is of a Timekeeper. With another Base the Client cannot open one,
// and on HTTP/2 all requests to a server share a connection. Let such a Base send pings,
// with http.HTTP2Config's SendPingTimeout for example, so that it finds a dead
// connection. Pings also help the application's own requests, which the Client sends
// once, under any Base.
//
// # Hooks
//
// Hooks are Logger, Trace, Clock, Attester, Cache, Base and Claims. The Client holds no
// lock while it calls one, so a hook may call the Client. Such a call must not wait for
// the work that the hook belongs to. It fails at once in that case, if the hook passes on
// its own context. Log records come when that work is done.
//
// # Where credentials go
//
// Credentials go to the endpoints in the metadata of the configured issuer and to
// Config.Resources, and nowhere else. They go over TLS or to a loopback host, and never
// along a redirect. All other requests through HTTPClient pass through, without header
// fields of the attestation's two names.
//
// # When a key is lost
//
// An error that matches keystore.ErrKeyLost means that the device can no longer use its
// key, for example because its TPM was cleared. Refresh tokens and attestations of that
// key are lost, too, and a new key has to be enrolled. The Client never replaces a key by
// itself. Delete the key from the Store and make a new Client.
//
// # Where to find what
//
// The Client:
//
//   - config.go: Config, and what is wrong with one
//   - client.go: New, HTTPClient, Close
//   - roundtripper.go: the way of a request to the transport
//   - server.go: the authorization server, and the transport's table
//   - resource.go, resourceconfig.go: the protected resources, and what each wants
//   - metadata.go, resourcemetadata.go: their metadata, fetched and checked
//   - method.go: how the client authenticates, by configuration and metadata
//   - prepare.go: Prepare
//   - clock.go, observer.go: the device's clock, corrected by what the server says
//   - timekeeper.go, certificatetime.go, clockset_linux.go, clockset_other.go: what else is known of the time,
//     and certificates on a device whose clock is wrong
//   - logging.go, trace.go: the hooks
//
// Tokens:
//
//   - token.go: Token, TokenFor, TokenSource
//   - resourceclient.go: ResourceClient, which puts tokens on requests
//   - kepttokens.go: those that are kept, and how old they are
//   - tokenrequest.go, tokenresponse.go: x/oauth2's request, and answers that it cannot read
//   - tokenerror.go, advice.go: refusals, and what is known of their cause
//   - tokenkey.go: what tokens are bound to
//   - storedtoken.go: tokens over restarts, Refresh
//
// Attestations:
//
//   - attester.go: Attester, and what its errors mean
//   - attestations.go: the attestation of the key, asked for, renewed, cached
//   - held.go: those at hand, and when the attester may be asked
//   - renew.go: Renew, DropAttestation
//   - health.go: Health
//   - attestation.go, check.go, decode.go: one attestation, and what is checked of it
//   - deviations.go: profiles of the draft
//   - httpattester.go, attestererror.go, enrolment.go, evidence.go: pull
//   - pushattester.go, selfattester.go: push, and the instance itself
//   - cache.go: attestations over restarts
//   - registration.go: what to register the client with
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
	base := cfg.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if cfg.Timekeeper == nil {
		c.tokenRenewals = flight.NewGroup[*oauth2.Token](c.ctx, tokenTimeout, true)
		c.clock = newClock(cfg.Clock, c.log)
	} else {
		c.clock = cfg.Timekeeper.clock
		if plain, ok := base.(*http.Transport); ok && cfg.Base == nil {
			base = cfg.Timekeeper.RoundTripper(plain)
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
