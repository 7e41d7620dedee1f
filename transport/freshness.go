// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"net/http"
	"time"
)

// freshness is what is known of an audience's challenges and DPoP nonces. It outlives
// the table, as long as what it was learnt from stays.
type freshness struct {
	endpoint   string // gives both; "" if there is none
	challenges *pool
	nonces     *pool // the challenges, where both are one value
}

// newFreshness returns what is known of an audience at first. Challenges and nonces
// come from the challenge endpoint with one request.
func (t *Transport) newFreshness(audience, endpoint string, challengeIsNonce bool) *freshness {
	f := &freshness{endpoint: endpoint, challenges: newPool(t.closed, t.now)}
	ask := func(ctx context.Context) (offer, error) { return t.ask(ctx, audience, endpoint) }
	if f.nonces = f.challenges; challengeIsNonce {
		f.challenges.setFetch(endpoint, func(ctx context.Context) (string, error) {
			offered, err := ask(ctx)
			return cmp.Or(offered.challenge, offered.nonce), err
		})
		return f
	}
	f.nonces = newPool(t.closed, t.now)
	f.nonces.optional = true
	f.challenges.setFetch(endpoint, func(ctx context.Context) (string, error) {
		offered, err := ask(ctx)
		if err == nil || offered.nonce != "" {
			f.nonces.fetched(offered.nonce, offered.nonceless())
		}
		return offered.challenge, err
	})
	f.nonces.setFetch(endpoint, func(ctx context.Context) (string, error) {
		offered, err := ask(ctx)
		f.challenges.store(offered.challenge)
		if err == nil || ctx.Err() != context.Canceled {
			// Proofs can do without: the others need not wait for this again.
			f.nonces.fetched(offered.nonce, offered.nonceless())
		}
		return offered.nonce, err
	})
	return f
}

// An offer is what a response brings for the requests to come; "" is none. A
// DPoP nonce (RFC 9449, section 8) is kept and used as a challenge is: its
// lifetime and reuse are the server's to decide as well.
type offer struct{ challenge, nonce string }

// nonceless returns how long an endpoint need not be asked for nonces after it made
// this offer without one: challenges tell that it works, and has none.
func (o offer) nonceless() time.Duration {
	if o.challenge != "" {
		return noneGiven
	}
	return noneNow
}

// offerIn returns what came in a response's header, without what is too long to
// send back.
func offerIn(h http.Header) offer {
	return offer{sendable(h[fieldChallenge]), sendable(h[fieldDPoPNonce])}
}

// sendable returns the first of a field's values, unless it is too long.
func sendable(values []string) string {
	if len(values) == 0 || len(values[0]) > maxChallenge {
		return ""
	}
	return values[0]
}

// offerOf returns what a response of a offers.
func (a *audience) offerOf(resp *http.Response) offer {
	offered := offerIn(resp.Header)
	if a.challengeIsNonce() {
		return offer{nonce: cmp.Or(offered.challenge, offered.nonce)}
	}
	return offered
}

// keep keeps what a response offered for requests to come.
func (f *freshness) keep(offered offer) {
	f.challenges.store(offered.challenge)
	f.nonces.store(offered.nonce)
}

// answered takes note of what the audience makes of the values that were sent. cause
// is the code of what it refuses the request for.
func (f *freshness) answered(a attempt, cause string, accepted bool) {
	f.challenges.answered(a.challenge, cause == codeUseChallenge, accepted)
	f.nonces.answered(a.nonce, cause == codeUseDPoPNonce, accepted)
}

// cause returns the code of what a refusal asks to send another one of: where
// challenge and nonce are one value, a server may say either.
func (a *audience) cause(code string) string {
	if code == codeUseChallenge && a.challengeIsNonce() {
		return codeUseDPoPNonce
	}
	return code
}

// nonce returns the nonce for a DPoP proof. The challenge endpoint may give one
// and save a refusal (draft, "Challenge Endpoint"); if it fails, there is still the
// refusal.
func (t *Transport) nonce(ctx context.Context, to *route) (use, error) {
	if to.dpop == nil {
		return use{}, nil
	}
	nonce, err := to.nonces.take(ctx)
	if err == nil || to.challengeIsNonce() || ctx.Err() != nil || t.closed.Err() != nil {
		return nonce, err
	}
	t.log.WarnContext(ctx, "transport: no DPoP nonce from the challenge endpoint, going on without", "audience", to.identifier, "error", err)
	return use{}, nil
}
