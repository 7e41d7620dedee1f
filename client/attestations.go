// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

const (
	// attestTimeout bounds one call of an Attester, which several requests may
	// wait for and which therefore ends with none of them. Evidence from a TPM
	// takes seconds, and making its endorsement key the first time perhaps a
	// minute.
	attestTimeout = 3 * time.Minute

	// renewPause is how long after a failed renewal the attester is left
	// alone, while the present attestation is still valid or after a refusal,
	// if the attester does not say how long. It is also how often the attester is
	// asked at the most because of what servers say of its attestations.
	renewPause = time.Minute

	// maxProxyPause bounds how long a proxy's answer can have the attester left alone.
	maxProxyPause = 10 * time.Minute
)

// attestations holds the Client Attestation of one key and gets the next one in
// time. There is at most one call of the Attester at any moment. It is the transport's
// AttestationSource.
//
// One attestation serves all servers and resources that accept its algorithm.
// Where their lists have nothing in common there is one of each algorithm, so
// that no server's attestation takes the place of another's, and an attester
// that has none for a list is left alone for a while on behalf of that list only.
// The cache has room for the last one got.
type attestations struct {
	attester Attester
	request  AttestRequest // what is the same for every call
	askTime  func(context.Context)
	cache    Cache  // nil: none
	cacheKey string // names the key of request
	now      func() time.Time
	log      *slog.Logger
	trace    *Trace

	renewals *flight.Group[string] // by list of algorithms
	turn     chan struct{}         // capacity 1; whose it is calls the Attester

	mu     sync.Mutex
	held   map[string]*attestation // the last of each algorithm
	got    int                     // how many there have been
	pause  failure                 // since the last renewal, if that failed
	unfit  map[string]failure      // the same by list of algorithms, if it failed for that
	failed error                   // what the last renewal failed with
	doubts pause                   // since a server's doubt had the attester asked
	cached bool                    // the cache has been looked into
}

func (c *Client) newAttestations(cfg Config) *attestations {
	return &attestations{
		attester: cfg.Attester,
		request: AttestRequest{
			ClientID: cfg.ClientID, Key: c.key, Issuer: cfg.Issuer, Clock: c.clock.now, Trace: cfg.Trace,
			Type: cfg.Deviations.AttestationType, Profile: cfg.Profile, subject: cfg.Deviations.CheckSubject,
		},
		askTime:  c.askTime,
		cache:    cfg.Cache,
		cacheKey: "attestation-" + c.thumbprint,
		now:      c.clock.now,
		log:      c.log,
		trace:    cfg.Trace,
		renewals: flight.NewGroup[string](c.ctx, attestTimeout, false),
		turn:     make(chan struct{}, 1),
		held:     make(map[string]*attestation),
		unfit:    make(map[string]failure),
	}
}

// Attestation returns an attestation that is valid now and is not rejected.
// signingAlgs is what the server's metadata lists. An attestation that is about
// to expire is renewed in the background, without anybody waiting. One that a server
// has called bad is used on if the attester has no other.
func (a *attestations) Attestation(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	current, due, err := a.look(rejected, signingAlgs)
	if err != nil || due == notDue {
		return current, err
	}
	asked := false // by this call, and not by one whose renewal it has joined
	name := listKey(signingAlgs)
	if _, inBackground := keystore.Background(ctx); inBackground {
		name = "background " + name // it may fail for want of a PIN, and others can ask for that
	}
	renew := func(ctx context.Context) (string, error) {
		asked = true
		return a.renew(ctx, rejected, signingAlgs, false)
	}
	if due == dueSoon {
		a.renewals.Begin(ctx, name, renew)
		return current, nil
	}
	raw, err := a.renewals.Do(ctx, name, renew)
	if err == nil && raw == rejected && !asked {
		// That was the renewal of somebody who had not been refused.
		raw, err = a.renewals.Do(ctx, name, renew)
	}
	switch {
	case current != "" && err != nil && ctx.Err() == nil:
		return current, nil
	case err == nil && raw == rejected:
		return "", fmt.Errorf("%w: the attester gave again the one that the server refused as not fresh enough", ErrInvalidAttestation)
	}
	return raw, err
}

// Judged notes what a server has made of an attestation. One that is not good has the
// next request ask the attester, at most once a minute.
func (a *attestations) Judged(raw string, good bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, held := range a.held {
		if held.raw == raw {
			held.doubted, held.untried = !good, held.untried && !good
		}
	}
}

// renew asks the Attester, unless somebody else's renewal, or one before the
// last restart, has brought what is needed. An operator's renewal is done in any case.
func (a *attestations) renew(ctx context.Context, rejected string, signingAlgs []string, always bool) (string, error) {
	request := a.request
	request.Rejected, request.SigningAlgs = rejected, signingAlgs

	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	a.restore(ctx, request)
	current, due, err := a.look(rejected, signingAlgs)
	if !always && (err != nil || due == notDue) {
		return current, err
	}
	if due == dueDoubted {
		request.Rejected = current
	}
	if rejected != "" || due == dueDoubted {
		a.doubt()
	}

	next, err := a.ask(ctx, request)
	a.settle(next, err, signingAlgs)
	if err != nil {
		a.log.WarnContext(ctx, "client: no new attestation", "client_id", a.request.ClientID, "error", err)
		return "", err
	}
	a.log.DebugContext(ctx, "client: new attestation", "client_id", a.request.ClientID, "expiry", next.expiry)
	if next.issued.IsZero() {
		a.log.WarnContext(ctx, "client: "+lacksIssuedAt, "client_id", a.request.ClientID)
	}
	return next.raw, nil
}

// ask gets an attestation from the Attester, checks it and puts it into the
// cache.
func (a *attestations) ask(ctx context.Context, request AttestRequest) (next *attestation, err error) {
	event := transport.TraceEvent{Start: time.Now()}
	asked := a.now()
	raw, err := a.attester.Attest(ctx, request)
	if err == nil {
		next, err = checkAttestation(raw, request, a.now())
	}
	if errors.Is(err, errExpired) || next.early(a.now()) {
		// An attestation that is new and has expired, or is of the future, says
		// that our clock is wrong, and it may have been set since the server last
		// told the time.
		a.askTime(ctx)
		next, err = checkAttestation(raw, request, a.now())
	}
	if err == nil {
		next.since, next.untried = asked, request.Rejected != ""
		next.renewFrom = next.renewal(a.now(), true)
	}
	event.Duration, event.Err = time.Since(event.Start), err
	a.trace.renewal(ctx, event)
	switch {
	case errors.Is(err, ErrAttestationRefused):
		a.uncache(ctx)
	case err == nil && a.cache != nil:
		if err := a.cache.Put(ctx, a.cacheKey, []byte(raw)); err != nil {
			a.log.WarnContext(ctx, "client: attestation not cached, the next start will ask the attester again", "error", err)
		}
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

// uncache takes the attestation out of the cache.
func (a *attestations) uncache(ctx context.Context) error {
	if a.cache == nil {
		return nil
	}
	err := a.cache.Delete(ctx, a.cacheKey)
	if err != nil {
		a.log.WarnContext(ctx, "client: attestation stays in the cache", "error", err)
	}
	return err
}

// restore looks into the cache, once. What is there counts only if it passes
// the checks for this key and client.
func (a *attestations) restore(ctx context.Context, request AttestRequest) {
	a.mu.Lock()
	looked := a.cached
	a.cached = true
	a.mu.Unlock()
	if looked || a.cache == nil {
		return
	}
	raw, err := a.cache.Get(ctx, a.cacheKey)
	if errors.Is(err, ErrCacheMiss) {
		return
	}
	if len(request.SigningAlgs) > 0 {
		// What this server does not accept another one may.
		request.SigningAlgs = append(slices.Clone(request.SigningAlgs), knownAlgs...)
	}
	var cached *attestation
	if err == nil {
		cached, err = checkAttestation(string(raw), request, a.now())
	}
	if cached.early(a.now()) {
		a.askTime(ctx) // either the clock is wrong, or it was then
		cached, err = checkAttestation(string(raw), request, a.now())
	}
	if cached.early(a.now()) {
		err = errEarly
	}
	if err != nil {
		a.log.InfoContext(ctx, "client: cached attestation not used", "error", err)
		return
	}
	cached.renewFrom = cached.renewal(a.now(), false)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold(cached)
}
