// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/instancekey/instancekey/internal/redial"
	"github.com/instancekey/instancekey/keystore"
)

// An AttestationSource gives the Client Attestation JWT for the Transport's key.
// It is safe for concurrent use.
type AttestationSource interface {
	// Attestation returns an attestation that can be sent now to a server or resource
	// that takes these JWS algorithms. No algorithms means any. If the server has just
	// refused an attestation as not fresh enough, that is rejected, and the result is
	// another one. Otherwise rejected is "". Attestation must return soon after ctx ends.
	Attestation(ctx context.Context, rejected string, signingAlgs []string) (string, error)

	// Judged is called with what a server or resource has decided on a request with this
	// attestation. good is true if the request succeeded. It is false if the request was
	// refused and the attestation may be the cause (invalid_client_attestation, or a
	// server's invalid_client). The Transport does not repeat that request. Judged must
	// not wait for anything.
	Judged(attestation string, good bool)
}

// Config configures a Transport. It is copied by New.
type Config struct {
	// Key is the Client Instance Key: it signs the PoP JWTs. Required.
	Key keystore.Key

	// Attestations gives the Client Attestation for Key. Required.
	Attestations AttestationSource

	// Servers are the authorization servers to authenticate to. With none,
	// every request passes through. See Update.
	Servers []Server

	// Resources are protected resources to send attestations to. See Update.
	Resources []Resource

	// BindBody makes each PoP JWT vouch for its request's own body, by the
	// claim that BindMessage describes; a context of BindMessage wins. Bodies
	// that cannot be read twice, or are over 1 MiB, are then ErrBinding.
	BindBody bool

	// Claims returns claims that are added to the PoP JWTs of a request and its retries.
	// If it returns a claim of the draft, that is an error and nothing is sent. Claims
	// must not read or change the request's body. It is not called for requests without a
	// PoP JWT. Nil means no claims.
	Claims func(*http.Request) (map[string]any, error)

	// DPoPKey signs DPoP proofs (RFC 9449) beside the PoP JWTs, so that tokens are bound
	// to it. DPoPKey may be Key. With another key the use of a token costs no signature
	// of slow hardware. Nil means no DPoP proof beside the PoP JWT. Servers with
	// MethodDPoP get proofs by Key in any case.
	DPoPKey keystore.Key

	// ClientID is the OAuth client_id. Profiles with "iss" need it; see
	// Profile.HasIssuer.
	ClientID string

	// SignAhead is how old a proof may be that was signed before its request was made.
	// After a request the proofs by Key for another one like it are then signed in the
	// background, so that it need not wait for slow hardware. Zero means that none are
	// signed ahead. At most a minute. See the package documentation.
	SignAhead time.Duration

	// Base sends the requests. It must send each request once: a library that repeats
	// requests would send one proof twice, and servers refuse that. Nil means
	// http.DefaultTransport. A second attempt at a challenge goes to a connection of its
	// own if Base is an *http.Transport.
	Base http.RoundTripper

	// Logger gets what an operator may want to see; never a credential. Nil
	// means that nothing is logged.
	Logger *slog.Logger

	// Trace is called after each step that takes time. Nil means no calls.
	Trace *Trace

	// Clock gives the time for "iat". Nil means time.Now.
	Clock func() time.Time
}

// A Transport is an http.RoundTripper; see the package documentation. It is
// safe for concurrent use.
type Transport struct {
	table  *atomic.Pointer[table] // like update a pointer, so that a copy can be printed
	update *sync.Mutex            // held while the next table is made, and over nothing else

	attestations AttestationSource
	instance     *signer // with the Client Instance Key
	dpop         *signer // for proofs beside the PoP JWT; nil: none
	thumbprint   string
	clientID     string
	bindBody     bool
	signAhead    time.Duration
	ahead        *aheadCounts
	forecast     *forecast
	claims       func(*http.Request) (map[string]any, error)
	base         http.RoundTripper
	log          *slog.Logger
	trace        *Trace
	now          func() time.Time
	closed       context.Context // ends with Close
	close        context.CancelCauseFunc
}

// ErrClosed: the Transport was closed before the request could be sent.
var ErrClosed = errors.New("transport: closed")

// New checks cfg and returns a Transport for it. It sends nothing.
func New(cfg Config) (*Transport, error) {
	if cfg.Key == nil {
		return nil, errors.New("transport: no key")
	}
	if cfg.Attestations == nil {
		return nil, errors.New("transport: no attestation source")
	}
	if cfg.SignAhead < 0 || cfg.SignAhead > MaxSignAhead {
		return nil, fmt.Errorf("transport: SignAhead of %s is not within 0 and %s", cfg.SignAhead, MaxSignAhead)
	}
	t := &Transport{
		table:        new(atomic.Pointer[table]),
		update:       new(sync.Mutex),
		attestations: cfg.Attestations,
		clientID:     cfg.ClientID,
		bindBody:     cfg.BindBody,
		signAhead:    cfg.SignAhead,
		ahead:        new(aheadCounts),
		forecast:     new(forecast),
		claims:       cfg.Claims,
		trace:        cfg.Trace,
		base:         cfg.Base,
		log:          cfg.Logger,
		now:          cfg.Clock,
	}
	t.closed, t.close = context.WithCancelCause(context.Background())
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	t.base = redial.Over(t.base)
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.now == nil {
		t.now = time.Now
	}
	var err error
	if t.instance, t.thumbprint, err = t.newSigner(cfg.Key, "key"); err != nil {
		return nil, err
	}
	if cfg.DPoPKey != nil {
		other, thumbprint, err := t.newSigner(cfg.DPoPKey, "DPoP key")
		if err != nil {
			return nil, err
		}
		if t.dpop = other; thumbprint == t.thumbprint {
			t.dpop = t.instance // one key, one turn
		}
	}
	if err := t.Update(cfg.Servers, cfg.Resources); err != nil {
		return nil, err
	}
	return t, nil
}

// String names the key, and nothing that is secret.
func (t Transport) String() string { return "transport.Transport{key " + t.thumbprint + "}" }

// GoString is String.
func (t Transport) GoString() string { return t.String() }

// RoundTrip implements http.RoundTripper. Errors are of type *[Error], or match
// [ErrRedirect] or [ErrClosed], or, for requests that pass through, are those of
// the base transport.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	by := t.table.Load()
	to := t.route(by, req)
	if req.Response != nil && (to != nil || t.isRedirected(by, req)) {
		closeBody(req)
		return nil, ErrRedirect
	}
	if to == nil || to.isResource { // which may have been the server's place
		if err := t.checkMoved(by, req); err != nil {
			closeBody(req)
			return nil, err
		}
	}
	if to == nil {
		return t.passThrough(req, by)
	}
	if t.closed.Err() != nil {
		closeBody(req)
		return nil, ErrClosed
	}
	return t.authenticate(req, to)
}

// Close ends what the Transport does in the background: the challenge requests that
// several requests may wait for, and signing ahead. Requests that wait for one fail with
// an *[Error] that matches [ErrClosed], and later ones that would be authenticated
// with ErrClosed. Requests that have got what they need go on, all others pass
// through as before, and the base transport stays open. Close may be called more
// than once; its error is nil.
func (t *Transport) Close() error {
	t.close(ErrClosed)
	t.endAhead(t.table.Load(), ErrClosed)
	return nil
}

// CloseIdleConnections closes the idle connections of the base transport, for
// http.Client's method of that name.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (t *Transport) passThrough(req *http.Request, by *table) (*http.Response, error) {
	if req.Method == http.MethodPost && by.sharesOrigin(req.URL) {
		t.log.WarnContext(req.Context(), "transport: POST to the issuer's origin is not authenticated: no endpoint has this URL", "path", req.URL.Path)
	}
	if hasCredentials(req.Header) {
		header := req.Header.Clone()
		req = req.WithContext(req.Context())
		req.Header = header
		remove(req.Header, credentials...)
	}
	return t.base.RoundTrip(req)
}
