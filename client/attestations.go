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
)

const (
	// attestTimeout bounds one call of an Attester, which several requests may
	// wait for and which therefore ends with none of them. Evidence from a TPM
	// takes seconds.
	attestTimeout = time.Minute

	// renewPause is how long after a failed renewal the attester is left
	// alone, while the present attestation is still valid or after a refusal.
	renewPause = time.Minute
)

// attestations holds the Client Attestation of one key and gets the next one in
// time. There is at most one call of the Attester at any moment.
type attestations struct {
	attester Attester
	request  AttestRequest // what is the same for every call
	detach   func(context.Context, time.Duration) (context.Context, context.CancelFunc)
	now      func() time.Time
	log      *slog.Logger

	flight singleflight.Group

	mu      sync.Mutex
	current *attestation
	refused error     // an ErrAttestationRefused that counts until retryAt
	retryAt time.Time // no renewal before
}

// get returns an attestation that is valid now and is not rejected.
// signingAlgs is what the server's metadata lists. An attestation that is about
// to expire is renewed in the background, without anybody waiting.
func (a *attestations) get(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	a.mu.Lock()
	current, refused, now := a.current, a.refused, a.now()
	paused := now.Before(a.retryAt)
	a.mu.Unlock()

	if refused != nil && paused {
		return "", refused
	}
	usable := current != nil && current.raw != rejected && now.Before(current.expiry)
	if usable && (paused || now.Before(current.renewFrom)) {
		return current.raw, nil
	}
	renewed := a.flight.DoChan("", func() (any, error) {
		ctx, cancel := a.detach(ctx, attestTimeout)
		defer cancel()
		return a.renew(ctx, rejected, signingAlgs)
	})
	if usable {
		return current.raw, nil
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case result := <-renewed:
		if result.Err != nil {
			return "", result.Err
		}
		raw := result.Val.(string)
		if raw == rejected {
			return "", fmt.Errorf("%w: the attester gave again the one that the server refused as not fresh enough", ErrInvalidAttestation)
		}
		return raw, nil
	}
}

// renew asks the Attester, unless somebody else's renewal has just brought what
// is needed.
func (a *attestations) renew(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	a.mu.Lock()
	current := a.current
	a.mu.Unlock()
	if now := a.now(); current != nil && current.raw != rejected && now.Before(current.renewFrom) {
		return current.raw, nil
	}

	request := a.request
	request.Rejected, request.SigningAlgs = rejected, signingAlgs
	raw, err := a.attester.Attest(ctx, request)
	var next *attestation
	if err == nil {
		next, err = checkAttestation(raw, request, a.now())
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.retryAt = a.now().Add(renewPause)
		if a.refused = nil; errors.Is(err, ErrAttestationRefused) {
			a.refused = err
		}
		a.log.WarnContext(ctx, "client: no new attestation", "client_id", a.request.ClientID, "error", err)
		return "", err
	}
	a.current, a.refused, a.retryAt = next, nil, time.Time{}
	a.log.DebugContext(ctx, "client: new attestation", "client_id", a.request.ClientID, "expiry", next.expiry)
	return next.raw, nil
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
