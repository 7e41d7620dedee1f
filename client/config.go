// SPDX-License-Identifier: Apache-2.0

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
	"time"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// Config configures a Client. It is copied by New.
type Config struct {
	// Issuer is the authorization server's issuer identifier (RFC 8414), byte
	// for byte as its metadata has it: an https URL, or http on a loopback
	// host. Required.
	Issuer string

	// ClientID is the OAuth client_id, the same for all instances of a client.
	// Required.
	ClientID string

	// Store holds the Client Instance Key under KeyName. New creates the key if the Store
	// does not have it. With a PushAttester New creates no key: the key must exist. New
	// knows a PushAttester by its type alone. If your own Attester hands out attestations
	// for keys that exist, open the key with Store.Open and set Key instead.
	Store keystore.Store

	// KeyName names the key in Store. Empty means DefaultKeyName, which depends on Issuer
	// and ClientID. So each server sees another key, and servers cannot recognize an
	// instance by its key (draft, "Privacy Considerations").
	KeyName string

	// Key is the Client Instance Key itself. It replaces Store and KeyName, which must
	// then be empty.
	Key keystore.Key

	// Attester gets the Client Attestation for the key. Required.
	Attester Attester

	// Cache keeps the attestation over restarts, so that a restart needs no attester.
	// DirCache keeps it in a folder. Nil means that the attestation is kept in memory
	// only.
	Cache Cache

	// Method is how the client authenticates. It must be the method that the client is
	// registered for at the server. Empty means the PoP JWT if the metadata lists it or
	// lists no method, and DPoP combined mode otherwise. The Client does not try another
	// method when a server refuses one.
	Method transport.Method

	// Profile is the form of the draft that the server speaks. Empty means
	// the current one, transport.ProfileDraft12.
	Profile transport.Profile

	// Deviations are the points at which a profile of the draft, such as SPIFFE's,
	// differs from it. The zero value means none.
	Deviations Deviations

	// DPoP says whether tokens are bound to a key. The zero value means that they are
	// not, unless the client authenticates in DPoP combined mode. A bound token works at
	// Resources only: requests to other places get no DPoP proof.
	DPoP DPoP

	// BindBody makes each PoP JWT vouch for the body of its request, by the claim that
	// transport.BindMessage describes. Combined mode has no PoP JWTs. With BindBody New
	// therefore refuses a Method of combined mode, and metadata that leads to combined
	// mode is ErrMetadata.
	BindBody bool

	// Claims returns claims to be added to the PoP JWTs of a request and its
	// retries; see transport.Config. Nil means none.
	Claims func(*http.Request) (map[string]any, error)

	// SignAhead is how old a proof may be that was signed before its request was made.
	// Shortly after a request the Client then signs, in the background, the proofs of the
	// Client Instance Key for another request like it. That request does not wait for a
	// TPM. Package transport says what is signed when, and what is thrown away. When
	// requests cease, one signature is in vain. Servers take proofs that are some 15
	// seconds old or more. When requests come at longer intervals each signature is in
	// vain: see [Client.Prepare]. Zero means that none are signed ahead. At most a minute.
	SignAhead time.Duration

	// Metadata is the server's metadata, for a server that does not publish
	// it. Nil means that it is fetched when first needed.
	Metadata *Metadata

	// Resources are the protected resources that this Client calls, with what each
	// of them wants. Token asks for tokens for all of them (RFC 8707), TokenFor for
	// one of them.
	Resources []Resource

	// Origins are the origins (scheme, host and port) that the endpoints in the metadata
	// may have. Write an origin as https://login.example.com, without a slash at its end.
	// The Client sends no form to these origins before it knows the metadata. Empty means
	// any origin: large providers have endpoints on other origins than the issuer's. The
	// Client logs such endpoints.
	Origins []string

	// Base sends all requests of this Client. The Attester sends its own requests (see
	// HTTPAttester.Client). Base must send each request once. A retry library in this
	// place would send one proof twice, and servers refuse that: see "Retry libraries" in
	// the package documentation. Nil means http.DefaultTransport; Timekeeper, if it is
	// set, then verifies the certificates. The Client sets no time limit: a request lasts
	// as long as its context.
	Base http.RoundTripper

	// Logger gets what an operator may want to see; never a credential. That a key was
	// made Trace.Key tells: a Logger may send its records through the Client, which New
	// has not returned by then. Nil means that nothing is logged.
	Logger *slog.Logger

	// Trace is called after each step that takes time. Nil means no calls.
	Trace *Trace

	// Clock is the device's clock. For JWTs and for the expiry of attestations, the
	// Client corrects it by what the server says over TLS, until the clock is set right.
	// It corrects by any amount. Once the two have agreed within 7 days, it corrects by 7
	// days at the most. Nil means time.Now.
	Clock func() time.Time

	// Timekeeper is what knows the time, instead of Clock, on a device whose clock may
	// be so wrong that certificates are not valid by it. Base is then its RoundTripper
	// over another one, or nil, and so is that of the Attester. Nil means that the
	// Client has one of its own for JWTs alone.
	Timekeeper *Timekeeper
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
	case cfg.Clock != nil && cfg.Timekeeper != nil:
		return nil, errors.New("client: both a clock and a timekeeper: give the clock to the timekeeper")
	case cfg.Cache == DirCache(""):
		return nil, errors.New("client: the cache's folder has no name: give DirCache one, or leave Cache nil")
	case !cfg.Method.Known():
		return nil, fmt.Errorf("client: unknown method %.60q", cfg.Method)
	case !cfg.Profile.Known():
		return nil, fmt.Errorf("client: unknown profile %.60q", cfg.Profile)
	case cfg.SignAhead < 0 || cfg.SignAhead > transport.MaxSignAhead:
		return nil, fmt.Errorf("client: SignAhead of %s is not within 0 and %s", cfg.SignAhead, transport.MaxSignAhead)
	case cfg.DPoP < DPoPOff || cfg.DPoP > DPoPInstanceKey:
		return nil, fmt.Errorf("client: unknown DPoP setting %d", cfg.DPoP)
	}
	if err := checkBinding(cfg.Method, cfg.BindBody); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if attester, ok := cfg.Attester.(interface{ check() error }); ok {
		if err := attester.check(); err != nil {
			return nil, err
		}
	}
	if err := cfg.Deviations.check(); err != nil {
		return nil, err
	}
	if err := checkResources(cfg.Resources); err != nil {
		return nil, err
	}
	for _, origin := range cfg.Origins {
		if u, err := endpoint.Parse(origin); err != nil || u.Path != "" || u.RawQuery != "" {
			return nil, errors.New("client: each of Origins must be scheme, host and port of an https URL, or of a loopback one")
		}
	}
	if cfg.Metadata == nil {
		return issuer, nil
	}
	if err = cfg.Metadata.check(cfg.Issuer, cfg.Origins); err == nil {
		_, err = cfg.Metadata.method(cfg.Method, cfg.BindBody)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	return issuer, nil
}

// openKey opens the key, or creates it, and tells the trace.
func openKey(ctx context.Context, cfg Config) (keystore.Key, error) {
	event := transport.TraceEvent{Start: time.Now(), Kind: keyGiven}
	if cfg.Key != nil {
		cfg.Trace.key(ctx, cfg.Key, event)
		return cfg.Key, nil
	}
	opened := &openings{Store: cfg.Store, kind: keyOpened}
	cfg.Store = opened
	key, err := openNamed(ctx, cfg)
	event.Duration, event.Kind, event.Err = time.Since(event.Start), opened.kind, err
	cfg.Trace.key(ctx, key, event)
	return key, err
}

// openings is a Store that knows whether it has created the key.
type openings struct {
	keystore.Store
	kind string
}

func (o *openings) Create(ctx context.Context, name string) (keystore.Key, error) {
	key, err := o.Store.Create(ctx, name)
	if err == nil {
		o.kind = keyCreated
	}
	return key, err
}

func openNamed(ctx context.Context, cfg Config) (keystore.Key, error) {
	name := cfg.KeyName
	if name == "" {
		name = DefaultKeyName(cfg.Issuer, cfg.ClientID)
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

// DefaultKeyName returns the name of the key that Config.KeyName "" stands for, so that
// a key can be imported or looked at before there is a Client.
func DefaultKeyName(issuer, clientID string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + clientID))
	return "instance-" + hex.EncodeToString(sum[:16])
}
