// Package client is one OAuth client instance at one authorization server,
// authenticated by OAuth 2.0 Attestation-Based Client Authentication
// (draft-ietf-oauth-attestation-based-client-auth, -11 and -12).
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
// Token sources of x/oauth2 keep the context they are made with and hold a lock
// while they fetch, so one stalled request holds up all who share the source.
// Where that matters use [Client.Token]: each caller's context ends its own
// wait.
//
// # Where credentials go
//
// Only to the endpoints in the metadata of the configured issuer and to
// Config.Resources, over TLS or to a loopback host, and never along a redirect.
// All other requests through HTTPClient are passed on, without header fields of
// the attestation's two names.
//
// # When a key is lost
//
// An error that matches keystore.ErrKeyLost means that the device can no longer
// use its key, for example because its TPM was cleared. Refresh tokens and
// attestations of that key are gone with it; a new key has to be enrolled. The
// Client never makes one on its own: delete the key from the Store and make a
// new Client.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/instancekey/instancekey/internal/endpoint"
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
	dpop           DPoP
	method         transport.Method
	profile        transport.Profile
	anyKey         bool // refresh tokens of other keys are taken
	bindBody       bool
	claims         func(*http.Request) (map[string]any, error)
	queue          *transport.Queue // of key
	attestations   *attestations
	origins        []string
	resources      []*resource          // the longest identifier first
	base           http.RoundTripper    // for the resources
	serverBase     http.RoundTripper    // for the server; the clock learns from its responses
	bystander      *transport.Transport // for requests when no server is known yet
	log            *slog.Logger
	trace          *transport.Trace
	clock          *clock

	ctx   context.Context // ends with Close; only for what outlives a caller's own context
	close context.CancelFunc

	flight singleflight.Group

	mu           sync.Mutex
	current      *server
	metadataFrom time.Time // zero for metadata given by the caller
	failed       time.Time // when metadata was last asked for in vain, with none known; zero: never
	tokens       map[string]*oauth2.Token
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
		claims:   cfg.Claims,
		queue:    transport.NewQueue(),
		origins:  slices.Clone(cfg.Origins),
		method:   cfg.Method,
		dpop:     cfg.DPoP,
		profile:  cfg.Profile,
		anyKey:   cfg.Deviations.RefreshTokensOfAnyKey,
		trace:    cfg.Trace,
		log:      cfg.Logger,
		tokens:   make(map[string]*oauth2.Token),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	base := cfg.Base
	if base == nil {
		base = http.DefaultTransport
	}
	c.clock = newClock(cfg.Clock, c.log)
	// One server's time is enough, and of several the resources' counts less.
	c.serverBase = observer{base, c.clock, true}
	c.base = observer{base, c.clock, false}
	if c.key, err = openKey(ctx, cfg); err != nil {
		return nil, err
	}
	if c.thumbprint, err = keystore.Thumbprint(c.key.Public()); err != nil {
		return nil, fmt.Errorf("client: key: %w", err)
	}
	if c.dpopKey, err = cfg.DPoP.key(c.key); err != nil {
		return nil, err
	}
	c.attestations = &attestations{
		attester: cfg.Attester,
		request: AttestRequest{
			ClientID: cfg.ClientID, Key: c.key, Issuer: cfg.Issuer, Clock: c.clock.now,
			Type: cfg.Deviations.AttestationType, Profile: cfg.Profile, subject: cfg.Deviations.CheckSubject,
		},
		detach:   c.detach,
		askTime:  c.askTime,
		cache:    cfg.Cache,
		cacheKey: "attestation-" + c.thumbprint,
		now:      c.clock.now,
		log:      c.log,
		trace:    c.trace,
		turn:     make(chan struct{}, 1),
		held:     make(map[string]*attestation),
		unfit:    make(map[string]pause),
	}
	if c.bystander, err = transport.New(transport.Config{Key: c.key, Attestations: issuerAttestations{attestations: c.attestations}, Base: base}); err != nil {
		return nil, err
	}
	if c.resources, err = c.newResources(cfg.Resources); err != nil {
		return nil, err
	}
	if cfg.Metadata != nil {
		if c.current, err = c.newServer(cfg.Metadata.clone()); err != nil {
			return nil, err
		}
	}
	c.ctx, c.close = context.WithCancel(context.Background())
	return c, nil
}

// HTTPClient returns an HTTP client that authenticates requests to the issuer's
// endpoints and to Config.Resources, and passes all others on, without header
// fields of the attestation's two names. It is an ordinary *http.Client: set its
// Timeout or Jar, or take its Transport and wrap it. Each call returns another
// one over the same state.
//
// Until the issuer's metadata is known, any POST of a form may be for an
// endpoint, and waits for the metadata: for 30 seconds if the issuer does not
// answer. After a failure, those to other origins than the issuer's are passed on
// without waiting, for 5 minutes. With Config.Origins only those to the issuer's
// origin and to Origins ever wait, and fail without metadata.
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

// Close ends what the Client does in the background; calls that need the
// server's metadata or a token, and requests that would be authenticated, then
// fail with ErrClosed. The Store stays open. Close may be called more than once.
func (c *Client) Close() error {
	c.close()
	if s, _ := c.known(); s != nil {
		s.transport.Close()
	}
	for _, r := range c.resources {
		t, _ := r.current()
		t.Close()
	}
	return nil
}

// closedOr returns ErrClosed for work that Close has ended, else err.
func (c *Client) closedOr(err error) error {
	if c.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ErrClosed
	}
	return err
}

// detach returns a context for work that several callers wait for: it keeps the
// values of ctx, but ends with the Client or the timeout instead.
func (c *Client) detach(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// await returns what a flight comes to, or the end of ctx, which ends this
// caller's wait for it and no other's.
func await[T any](ctx context.Context, what string, flight <-chan singleflight.Result) (result T, err error) {
	select {
	case <-ctx.Done():
		return result, fmt.Errorf("client: %s: %w", what, ctx.Err())
	case landed := <-flight:
		if landed.Err != nil {
			return result, landed.Err
		}
		return landed.Val.(T), nil
	}
}
