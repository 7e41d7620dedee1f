package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

	flight singleflight.Group

	mu      sync.Mutex
	current *attestation
	pause   pause // since the last renewal, if that failed
	failed  error // what it failed with, if requests without an attestation fail with that during the pause
	cached  bool  // the cache has been looked into
}

// get returns an attestation that is valid now and is not rejected.
// signingAlgs is what the server's metadata lists. An attestation that is about
// to expire is renewed in the background, without anybody waiting.
func (a *attestations) get(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	a.mu.Lock()
	current, failed, now := a.current, a.failed, a.now()
	paused := a.pause.holds(now)
	a.mu.Unlock()

	usable := current != nil && current.raw != rejected && now.Before(current.expiry)
	if usable && (paused || now.Before(current.renewFrom)) {
		return current.raw, nil
	}
	if !usable && paused && failed != nil {
		return "", failed
	}
	asked := false // by this call, and not by one whose renewal it has joined
	renew := func() <-chan singleflight.Result {
		return a.flight.DoChan("", func() (any, error) {
			asked = true
			ctx, cancel := a.detach(ctx, attestTimeout)
			defer cancel()
			return a.renew(ctx, rejected, signingAlgs)
		})
	}
	renewed := renew()
	if usable {
		return current.raw, nil
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

	a.restore(ctx, request)
	a.mu.Lock()
	current := a.current
	a.mu.Unlock()
	if current != nil && current.raw != rejected && a.now().Before(current.renewFrom) {
		return current.raw, nil
	}

	next, err := a.ask(ctx, request)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.fail(err)
		a.log.WarnContext(ctx, "client: no new attestation", "client_id", a.request.ClientID, "error", err)
		return "", err
	}
	a.current, a.failed, a.pause = next, nil, pause{}
	a.log.DebugContext(ctx, "client: new attestation", "client_id", a.request.ClientID, "expiry", next.expiry)
	return next.raw, nil
}

// fail notes what a failed renewal means for the next ones. a.mu is held.
func (a *attestations) fail(err error) {
	length, counts := renewPause, false
	if errors.Is(err, ErrAttestationRefused) {
		a.current, counts = nil, true
	}
	var answer *AttesterError
	if errors.As(err, &answer) && answer.RetryAfter > 0 {
		length, counts = answer.RetryAfter, true
	}
	a.pause, a.failed = pause{a.now().Add(length), length}, nil
	if counts {
		a.failed = err
	}
}

// A pause is a time during which the attester is left alone.
type pause struct {
	until  time.Time
	length time.Duration
}

// holds reports whether it is not over. One with more left than its length
// counts as over: the clock was set back.
func (p pause) holds(now time.Time) bool {
	left := p.until.Sub(now)
	return 0 < left && left <= p.length
}

// ask gets an attestation from the Attester, checks it and puts it into the
// cache.
func (a *attestations) ask(ctx context.Context, request AttestRequest) (next *attestation, err error) {
	event := transport.TraceEvent{Start: time.Now()}
	raw, err := a.attester.Attest(ctx, request)
	if err == nil {
		next, err = checkAttestation(raw, request, a.now())
	}
	if errors.Is(err, errExpired) {
		// An attestation that is new and has expired says that our clock is
		// wrong, and it may have been set since the server last told the time.
		a.askTime(ctx)
		next, err = checkAttestation(raw, request, a.now())
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
	var cached *attestation
	if err == nil {
		cached, err = checkAttestation(string(raw), request, a.now())
	}
	if err != nil {
		a.log.InfoContext(ctx, "client: cached attestation not used", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = cached
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
