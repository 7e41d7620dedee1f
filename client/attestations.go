package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

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
	// if the attester does not say how long.
	renewPause = time.Minute
)

// attestations holds the Client Attestation of one key and gets the next one in
// time. There is at most one call of the Attester at any moment.
//
// One attestation serves all servers and resources that accept its algorithm.
// Where their lists have nothing in common there is one of each algorithm, so
// that no server's attestation takes the place of another's, and an attester
// that has none for a list is left alone for a while on behalf of that list only.
// The cache has room for the last one got.
type attestations struct {
	attester Attester
	request  AttestRequest // what is the same for every call
	detach   func(context.Context, time.Duration) (context.Context, context.CancelFunc)
	askTime  func(context.Context)
	cache    Cache  // nil: none
	cacheKey string // names the key of request
	now      func() time.Time
	log      *slog.Logger
	trace    *transport.Trace

	flight singleflight.Group // by list of algorithms
	turn   chan struct{}      // capacity 1; whose it is calls the Attester

	mu     sync.Mutex
	held   map[string]*attestation // the last of each algorithm
	got    int                     // how many there have been
	pause  pause                   // since the last renewal, if that failed
	unfit  map[string]pause        // the same by list of algorithms, if it failed for that
	cached bool                    // the cache has been looked into
}

// get returns an attestation that is valid now and is not rejected.
// signingAlgs is what the server's metadata lists. An attestation that is about
// to expire is renewed in the background, without anybody waiting.
func (a *attestations) get(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	current, due, err := a.look(rejected, signingAlgs)
	if err != nil || !due {
		return current, err
	}
	asked := false // by this call, and not by one whose renewal it has joined
	renew := func() <-chan singleflight.Result {
		return a.flight.DoChan(listKey(signingAlgs), func() (any, error) {
			asked = true
			ctx, cancel := a.detach(ctx, attestTimeout)
			defer cancel()
			return a.renew(ctx, rejected, signingAlgs)
		})
	}
	renewed := renew()
	if current != "" {
		return current, nil
	}
	raw, err := await[string](ctx, "attestation", renewed)
	if err == nil && raw == rejected && !asked {
		// That was the renewal of somebody who had not been refused.
		raw, err = await[string](ctx, "attestation", renew())
	}
	if err == nil && raw == rejected {
		err = fmt.Errorf("%w: the attester gave again the one that the server refused as not fresh enough", ErrInvalidAttestation)
	}
	if err != nil {
		return "", err
	}
	return raw, nil
}

// renew asks the Attester, unless somebody else's renewal, or one before the
// last restart, has brought what is needed.
func (a *attestations) renew(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	request := a.request
	request.Rejected, request.SigningAlgs = rejected, signingAlgs

	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	a.restore(ctx, request)
	if current, due, err := a.look(rejected, signingAlgs); err != nil || !due {
		return current, err
	}

	next, err := a.ask(ctx, request)
	a.settle(next, err, signingAlgs)
	if err != nil {
		a.log.WarnContext(ctx, "client: no new attestation", "client_id", a.request.ClientID, "error", err)
		return "", err
	}
	a.log.DebugContext(ctx, "client: new attestation", "client_id", a.request.ClientID, "expiry", next.expiry)
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
		next.since = asked
	}
	if event.Duration, event.Err = time.Since(event.Start), err; a.trace != nil && a.trace.Renewal != nil {
		a.trace.Renewal(ctx, event)
	}
	if a.cache == nil {
		return next, err
	}
	if errors.Is(err, ErrAttestationRefused) {
		if err := a.cache.Delete(ctx, a.cacheKey); err != nil {
			a.log.WarnContext(ctx, "client: attestation stays in the cache", "error", err)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := a.cache.Put(ctx, a.cacheKey, []byte(raw)); err != nil {
		a.log.WarnContext(ctx, "client: attestation not cached, the next start will ask the attester again", "error", err)
	}
	return next, nil
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
		request.SigningAlgs = slices.Clone(request.SigningAlgs)
		for _, alg := range knownAlgs {
			request.SigningAlgs = append(request.SigningAlgs, string(alg))
		}
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
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold(cached)
}

// renewFrom returns when to begin to renew an attestation received now: after
// 70 to 90 % of what is left of its life, at random, so that devices that
// booted together do not come to the attester together.
func renewFrom(now, expiry time.Time) time.Time {
	part := 0.7 + 0.2*rand.Float64()
	return now.Add(time.Duration(part * float64(expiry.Sub(now))))
}

// issuerAttestations is attestations for a server, as package transport asks
// for them.
type issuerAttestations struct {
	*attestations
	signingAlgs []string
}

func (a issuerAttestations) Attestation(ctx context.Context, rejected string) (string, error) {
	return a.get(ctx, rejected, a.signingAlgs)
}
