// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
)

// maxSends is how often a request is sent at the most: once, and once more for each
// of the causes that a server can have.
const maxSends = 4

// attempt is what one send of a request is made of, apart from the proofs,
// which are new for each send.
type attempt struct {
	number      int     // from 1
	after       refusal // that this send is the answer to
	before      *sent   // what earlier sends had in their headers
	attestation string
	challenge   use            // for the PoP JWT
	nonce       use            // for the DPoP proof
	reqHash     string         // of a bound message, for the PoP JWT
	claims      map[string]any // of the caller, for the PoP JWT
	pop, proof  *proof         // PoP JWT and DPoP proof, if they were signed ahead
}

// authenticate sends req with client authentication and, where the server asks
// for it and the request can be repeated, sends it again: for a new challenge, for a
// DPoP nonce, and once for a fresh attestation. The same cause twice in a row ends it.
//
// It takes over req.Body: every path either hands it to the base transport or
// closes it.
func (t *Transport) authenticate(req *http.Request, to *route) (*http.Response, error) {
	ctx := req.Context()
	a, failed, err := t.prepare(ctx, req, to)
	if err != nil {
		t.notSent(ctx, to.audience, a.pop, a.proof)
		closeBody(req)
		return nil, t.fail(to, a, failed, err)
	}
	var last string // cause
	var challenged, renewed bool
	for {
		resp, sent, offered, refused, err := t.send(req, to, a)
		if err != nil {
			return nil, err
		}
		cause := to.cause(refused.code)
		renewed = renewed || last == codeUseFreshAttestation
		challenged = challenged || cause == codeUseChallenge
		if !retryable(cause) || cause == last || a.number == maxSends || !replayable(req) ||
			cause == codeUseFreshAttestation && renewed {
			to.keep(offered)
			t.judge(to, a, resp, refused)
			t.foresee(req, to, a, resp, refused)
			return returned(resp, req, sent, a, refused), nil
		}
		last = cause

		next, again, err := t.next(ctx, to, a, cause, offered, challenged)
		next.after, next.before = refused, sent
		if err != nil {
			discard(resp.Body)
			return nil, t.fail(to, next, StepRetry, err)
		}
		if !again {
			t.foresee(req, to, a, resp, refused)
			return returned(resp, req, sent, a, refused), nil
		}
		t.log.DebugContext(ctx, "transport: server asks to send again", "audience", to.identifier, "error", refused.code, "send", a.number)
		discard(resp.Body)
		a = next
	}
}

// prepare gets what the first send is made of. Challenge and nonce come after
// the attestation: they age.
func (t *Transport) prepare(ctx context.Context, req *http.Request, to *route) (a attempt, at Step, err error) {
	a.number = 1
	if a.reqHash, err = t.boundHash(req, to); err != nil {
		return a, StepSign, err
	}
	if a.claims, err = t.extraClaims(req, to); err != nil {
		return a, StepSign, err
	}
	if !to.unattested {
		flight.At(ctx, string(StepAttestation), a.number)
		if a.attestation, err = t.attestation(ctx, to, ""); err != nil {
			return a, StepAttestation, err
		}
	}
	demands := t.demands(req, to, a)
	if len(demands) > 0 {
		t.expect(ctx, to.audience)
	}
	for _, d := range demands {
		switch p, u := t.takeAhead(ctx, to.audience, d); {
		case p == nil:
		case d.typ == typePoP:
			a.pop, a.challenge = p, u
		default:
			a.proof, a.nonce = p, u
		}
	}
	flight.At(ctx, string(StepChallenge), a.number)
	if to.sendsPoP() && a.pop == nil {
		if a.challenge, err = to.challenges.take(ctx); err != nil {
			return a, StepChallenge, err
		}
	}
	if a.proof == nil {
		a.nonce, err = t.nonce(ctx, to)
	}
	return a, StepChallenge, err
}

func (t *Transport) attestation(ctx context.Context, to *route, rejected string) (string, error) {
	attestation, err := t.attestations.Attestation(ctx, rejected, to.signingAlgs)
	if err != nil {
		return "", err
	}
	if !isToken(attestation) {
		return "", errors.New("the attestation is not a JWT in compact form")
	}
	return attestation, nil
}

// judge tells the source what has become of an attestation.
func (t *Transport) judge(to *route, a attempt, resp *http.Response, refused refusal) {
	switch {
	case to.unattested:
	case resp.StatusCode/100 == 2:
		t.attestations.Judged(a.attestation, true)
	case refused.code == codeInvalidAttestation || refused.code == codeInvalidClient && !to.isResource:
		t.attestations.Judged(a.attestation, false)
	}
}

// send makes the proofs for this send, sends a copy of req with them, and takes
// note of what the response says about freshness. It returns what was sent,
// what the response offers, which is not yet kept, and what it refuses the request with.
func (t *Transport) send(req *http.Request, to *route, a attempt) (resp *http.Response, headers *sent, offered offer, refused refusal, err error) {
	ctx := req.Context()
	out := req.WithContext(ctx)
	out.Header = req.Header.Clone()
	flight.At(ctx, string(StepSign), a.number)
	ahead, err := t.sign(ctx, out, to, a)
	if err != nil {
		if a.number == 1 {
			closeBody(req)
		}
		return nil, nil, offer{}, refusal{}, t.fail(to, a, StepSign, err)
	}
	if a.number > 1 && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, nil, offer{}, refusal{}, t.fail(to, a, StepRetry, err)
		}
		out.Body = body
	}
	t.ahead.sent.Add(int64(len(ahead)))
	flight.Asked(ctx, string(StepSend), a.number)
	event := TraceEvent{Start: time.Now(), Audience: to.identifier, Send: a.number}
	resp, err = t.base.RoundTrip(out)
	event.Duration = time.Since(event.Start)
	if event.Err = err; err != nil {
		to.answered(a, "", false)
		t.trace.request(ctx, event)
		return nil, nil, offer{}, refusal{}, t.fail(to, a, StepSend, err)
	}

	headers = &sent{out.Header, a.before}
	refused = refusalOf(resp, to).fit(headers, req)
	to.answered(a, to.cause(refused.code), resp.StatusCode < 300)
	event.Status, event.Code = resp.StatusCode, refused.code
	t.trace.request(ctx, event)
	return resp, headers, to.offerOf(resp), refused, nil
}

// sign sets the header fields of client authentication, and returns which of the proofs
// were signed ahead.
func (t *Transport) sign(ctx context.Context, out *http.Request, to *route, a attempt) (ahead []*proof, err error) {
	if out.Header == nil {
		out.Header = make(http.Header)
	}
	remove(out.Header, credentials...)
	keepSingle(out.Header, to.isResource)
	if !to.unattested {
		out.Header[fieldAttestation] = []string{a.attestation}
	}
	pop, dpop, ahead, err := t.proofs(ctx, out, to, a)
	if err != nil {
		return nil, err
	}
	if to.sendsPoP() {
		out.Header[fieldAttestationPoP] = []string{pop}
	}
	if to.dpop != nil {
		remove(out.Header, HeaderDPoP)
		out.Header[fieldDPoP] = []string{dpop}
	}
	if err := t.checkHeaderSize(ctx, to, out.Header); err != nil {
		t.notSent(ctx, to.audience, ahead...)
		return nil, err
	}
	return ahead, nil
}

// proofs returns the PoP JWT and the DPoP proof for a send, "" for one that it does not
// carry, and those that were signed ahead. These age while another one is signed, so they
// come last.
func (t *Transport) proofs(ctx context.Context, out *http.Request, to *route, a attempt) (pop, dpop string, ahead []*proof, err error) {
	signPoP := func() (string, error) { return t.signPoP(ctx, to, a) }
	signDPoP := func() (string, error) { return t.signDPoP(ctx, to, out, a.nonce.value()) }
	if to.sendsPoP() && a.pop == nil {
		pop, err = signPoP()
	}
	if to.dpop != nil && a.proof == nil && err == nil {
		dpop, err = signDPoP()
	}
	if err != nil {
		t.notSent(ctx, to.audience, a.pop, a.proof)
		return "", "", nil, err
	}
	take := func(p *proof, jwt *string, sign func() (string, error)) {
		if p == nil {
			return
		}
		if err != nil {
			t.notSent(ctx, to.audience, p)
			return
		}
		var isAhead bool
		if *jwt, isAhead, err = t.aheadOr(ctx, to.audience, p, sign); isAhead {
			ahead = append(ahead, p)
		}
	}
	take(a.pop, &pop, signPoP)
	take(a.proof, &dpop, signDPoP)
	if err != nil {
		t.notSent(ctx, to.audience, ahead...)
		return "", "", nil, err
	}
	return pop, dpop, ahead, nil
}

// next returns what to send after a refusal; again is false if there is
// nothing new to send. What the refusal offers for its cause is for this retry
// alone. challenged says that a challenge was refused before, so that the next
// one must be good.
func (t *Transport) next(ctx context.Context, to *route, a attempt, cause string, offered offer, challenged bool) (next attempt, again bool, err error) {
	a.number++
	a.pop, a.proof = nil, nil
	flight.At(ctx, string(StepChallenge), a.number)
	switch {
	case cause == codeUseFreshAttestation && !to.unattested:
		to.keep(offered)
		flight.At(ctx, string(StepAttestation), a.number)
		if a.attestation, err = t.attestation(ctx, to, a.attestation); err != nil {
			return a, false, err
		}
		flight.At(ctx, string(StepChallenge), a.number)
		again = true
	case cause == codeUseChallenge && to.sendsPoP():
		to.nonces.store(offered.nonce)
		a.challenge, again, err = to.challenges.retry(ctx, a.challenge, offered.challenge)
	case cause == codeUseDPoPNonce && to.dpop != nil:
		to.challenges.store(offered.challenge)
		a.nonce, again, err = to.nonces.retry(ctx, a.nonce, offered.nonce)
	default:
		to.keep(offered)
	}
	if err != nil && ctx.Err() == nil {
		// The refusal says more than that nothing new is to be had.
		t.log.WarnContext(ctx, "transport: nothing new for the retry", "audience", to.identifier, "cause", cause, "error", err)
		return a, false, nil
	}
	// The server may have used up what else was sent. A nonce that is at hand in
	// its place may be another request's; the one that was sent may not be used up.
	switch {
	case !again || cause == codeUseChallenge || !to.sendsPoP():
	case challenged:
		a.challenge, err = to.challenges.takeUnused(ctx)
	default:
		a.challenge, err = to.challenges.take(ctx)
	}
	if again && err == nil && cause != codeUseDPoPNonce && to.nonces.hasSpare() {
		a.nonce, err = t.nonce(ctx, to)
	}
	return a, again && err == nil, err
}

// replayable reports whether the body can be sent a second time. It is never
// buffered for that: the caller decides by giving GetBody or not.
func replayable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
