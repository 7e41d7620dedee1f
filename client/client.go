// Package client is one OAuth client instance at one authorization server,
// authenticated by OAuth 2.0 Attestation-Based Client Authentication
// (draft-ietf-oauth-attestation-based-client-auth-11).
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
// Token sources of x/oauth2 keep the context they are made with and hold a lock
// while they fetch, so one stalled request holds up all who share the source.
// Where that matters use [Client.Token]: each caller's context ends its own
// wait.
//
// # Where credentials go
//
// Only to the endpoints in the metadata of the configured issuer, over TLS or
// to a loopback host, and never along a redirect. All other requests through
// HTTPClient pass as they are.
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
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
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

// Config configures a Client. It is copied by New.
type Config struct {
	// Issuer is the authorization server's issuer identifier (RFC 8414), byte
	// for byte as its metadata has it: an https URL, or http on a loopback
	// host. Required.
	Issuer string

	// ClientID is the OAuth client_id, the same for all instances of a client.
	// Required.
	ClientID string

	// Store holds the Client Instance Key under KeyName. With a PushAttester
	// the key must exist; otherwise New creates it the first time.
	Store keystore.Store

	// KeyName names the key in Store. Empty means a name derived from Issuer
	// and ClientID, so that each server sees another key and servers cannot
	// recognize one instance by it (draft, "Privacy Considerations").
	KeyName string

	// Key is the Client Instance Key itself, instead of Store and KeyName.
	Key keystore.Key

	// Attester gets the Client Attestation for the key. Required.
	Attester Attester

	// Cache keeps the attestation over restarts, so that a restart needs no
	// attester. Nil means memory only; DirCache is a folder.
	Cache Cache

	// Method is how the client authenticates: the one it is registered for at
	// the server. Empty means the PoP JWT if the metadata offers it or does
	// not say, else DPoP combined mode. There is no change from one to the
	// other when a server refuses.
	Method transport.Method

	// Profile is the form of the draft that the server speaks. Empty means
	// the current one, transport.ProfileDraft12.
	Profile transport.Profile

	// DPoP says whether tokens are bound to a key. The zero value means no,
	// unless Method is DPoP combined mode.
	DPoP DPoP

	// Metadata is the server's metadata, for a server that does not publish
	// it. Nil means that it is fetched when first needed.
	Metadata *Metadata

	// Resources are the identifiers of protected resources (RFC 9728) that
	// attestations are sent to as well, beside the access token that you put
	// into the Authorization field. The identifier is a URL; the requests for
	// the resource are those to it and below it. Token asks for tokens for
	// these resources (RFC 8707).
	Resources []string

	// Base sends all requests to the server and the resources. Nil means http.DefaultTransport.
	Base http.RoundTripper

	// Logger gets what an operator may want to see; never a credential. Nil
	// means that nothing is logged.
	Logger *slog.Logger

	// Trace is told what takes time. Nil means nobody is.
	Trace *transport.Trace

	// Clock is the device's clock. The Client corrects it, by up to 7 days, by
	// what the server says over TLS, for JWTs and for the expiry of
	// attestations. Nil means time.Now.
	Clock func() time.Time
}

// A Client is one client instance at one authorization server. It is safe for
// concurrent use.
type Client struct {
	issuer, origin string
	clientID       string
	key            keystore.Key
	thumbprint     string       // of key
	dpopKey        keystore.Key // nil: no DPoP proofs beside PoP JWTs
	method         transport.Method
	profile        transport.Profile
	attestations   *attestations
	resources      []*resource          // the longest identifier first
	base           http.RoundTripper    // for the server and the resources
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
	c := &Client{
		issuer:   cfg.Issuer,
		origin:   endpoint.Origin(issuer),
		clientID: cfg.ClientID,
		method:   cfg.Method,
		profile:  cfg.Profile,
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
	c.base = observer{base, c.clock}
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
		request:  AttestRequest{ClientID: cfg.ClientID, Key: c.key, Issuer: cfg.Issuer, Clock: c.clock.now},
		detach:   c.detach,
		cache:    cfg.Cache,
		cacheKey: "attestation-" + c.thumbprint,
		now:      c.clock.now,
		log:      c.log,
		trace:    c.trace,
	}
	if c.bystander, err = transport.New(transport.Config{Key: c.key, Attestations: issuerAttestations{attestations: c.attestations}, Base: base}); err != nil {
		return nil, err
	}
	if c.resources, err = c.newResources(cfg.Resources); err != nil {
		return nil, err
	}
	if cfg.Metadata != nil {
		metadata := *cfg.Metadata
		if c.current, err = c.newServer(&metadata); err != nil {
			return nil, err
		}
	}
	c.ctx, c.close = context.WithCancel(context.Background())
	return c, nil
}

// check finds what is wrong with cfg before a key is made for it.
func (cfg *Config) check() (issuer *url.URL, err error) {
	if issuer, err = checkIssuer(cfg.Issuer); err != nil {
		return nil, err
	}
	switch {
	case cfg.ClientID == "":
		return nil, errors.New("client: no client_id")
	case cfg.Attester == nil:
		return nil, errors.New("client: no attester")
	case cfg.Key == nil && cfg.Store == nil:
		return nil, errors.New("client: no key store and no key")
	case cfg.Key != nil && (cfg.Store != nil || cfg.KeyName != ""):
		return nil, errors.New("client: both a key and a key store or key name")
	case !cfg.Method.Known():
		return nil, fmt.Errorf("client: unknown method %.60q", cfg.Method)
	case !cfg.Profile.Known():
		return nil, fmt.Errorf("client: unknown profile %.60q", cfg.Profile)
	case cfg.DPoP < DPoPOff || cfg.DPoP > DPoPInstanceKey:
		return nil, fmt.Errorf("client: unknown DPoP setting %d", cfg.DPoP)
	}
	if cfg.Metadata == nil {
		return issuer, nil
	}
	if err := cfg.Metadata.check(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	_, err = cfg.Metadata.method(cfg.Method)
	return issuer, err
}

func openKey(ctx context.Context, cfg Config) (keystore.Key, error) {
	if cfg.Key != nil {
		return cfg.Key, nil
	}
	name := cfg.KeyName
	if name == "" {
		name = defaultKeyName(cfg.Issuer, cfg.ClientID)
	}
	open := keystore.OpenOrCreate
	switch cfg.Attester.(type) {
	case PushAttester, *PushAttester:
		// The attestation names a key that exists; a new one would not fit it.
		open = func(ctx context.Context, s keystore.Store, name string) (keystore.Key, error) {
			return s.Open(ctx, name)
		}
	}
	key, err := open(ctx, cfg.Store, name)
	if err != nil {
		return nil, fmt.Errorf("client: key %s: %w", name, err)
	}
	return key, nil
}

func defaultKeyName(issuer, clientID string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + clientID))
	return "instance-" + hex.EncodeToString(sum[:16])
}

// HTTPClient returns an HTTP client that authenticates the requests to the
// issuer's endpoints and lets all others pass. It is an ordinary *http.Client:
// set its Timeout or Jar, or take its Transport and wrap it. Each call returns
// another one over the same state.
//
// A redirect away from an authenticated request fails with an error that
// matches transport.ErrRedirect.
func (c *Client) HTTPClient() *http.Client {
	return &http.Client{Transport: roundTripper{c}}
}

// Key returns the Client Instance Key.
func (c *Client) Key() keystore.Key { return c.key }

// Close ends what the Client does in the background; calls that need the
// server's metadata or a token then fail with ErrClosed. The Store stays open.
// Close may be called more than once.
func (c *Client) Close() error {
	c.close()
	return nil
}

// detach returns a context for work that several callers wait for: it keeps the
// values of ctx, but ends with the Client or the timeout instead.
func (c *Client) detach(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}
