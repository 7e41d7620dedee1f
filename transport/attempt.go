package transport

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"time"
)

// attempt is what one send of a request is made of, apart from the proofs,
// which are new for each send.
type attempt struct {
	number      int     // from 1
	after       refusal // that this send is the answer to
	attestation string
	challenge   use            // for the PoP JWT
	nonce       use            // for the DPoP proof
	reqHash     string         // of a bound message, for the PoP JWT
	claims      map[string]any // of the caller, for the PoP JWT
}

// authenticate sends req with client authentication and, where the server asks
// for it and the request can be repeated, sends it again: once for a new
// challenge, once for a fresh attestation, once for a DPoP nonce. The same cause
// twice ends it, so there are four sends at most.
//
// It takes over req.Body: every path either hands it to the base transport or
// closes it.
func (t *Transport) authenticate(req *http.Request, s *server) (*http.Response, error) {
	ctx := req.Context()
	a, failed, err := t.prepare(ctx, req, s)
	if err != nil {
		closeBody(req)
		return nil, t.fail(s, a, failed, err)
	}
	retried := make(map[string]bool)
	for {
		resp, offered, code, err := t.send(req, s, a)
		if err != nil {
			return nil, err
		}
		cause := s.cause(code)
		if !retryable(code) || retried[cause] || !replayable(req) {
			s.keep(offered)
			return returned(resp, req, a, code), nil
		}
		retried[cause] = true

		next, again, err := t.next(ctx, req, s, a, cause, offered, retried[codeUseChallenge])
		next.after = refusal{resp.StatusCode, code}
		if err != nil {
			discard(resp.Body)
			return nil, t.fail(s, next, stepRetry, err)
		}
		if !again {
			return returned(resp, req, a, code), nil
		}
		t.log.DebugContext(ctx, "transport: server asks to send again", "audience", s.audience, "error", code, "send", a.number)
		discard(resp.Body)
		a = next
	}
}

// prepare gets what the first send is made of. Challenge and nonce come after
// the attestation: they age.
func (t *Transport) prepare(ctx context.Context, req *http.Request, s *server) (a attempt, failed step, err error) {
	a.number = 1
	if a.reqHash, err = t.boundHash(req, s); err != nil {
		return a, stepSign, err
	}
	if a.claims, err = t.extraClaims(req, s); err != nil {
		return a, stepSign, err
	}
	if !s.unattested {
		if a.attestation, err = t.attestation(ctx, ""); err != nil {
			return a, stepAttestation, err
		}
	}
	if s.sendsPoP() {
		if a.challenge, err = s.challenges.take(ctx); err != nil {
			return a, stepChallenge, err
		}
	}
	a.nonce, err = t.nonce(ctx, req, s)
	return a, stepChallenge, err
}

// token68 is what an attestation's header field may hold (draft, "Client
// Attestation JWT"; RFC 9110, section 11.2).
var token68 = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

func (t *Transport) attestation(ctx context.Context, rejected string) (string, error) {
	attestation, err := t.attestations.Attestation(ctx, rejected)
	if err != nil {
		return "", err
	}
	if !token68.MatchString(attestation) {
		return "", errors.New("the attestation is not a JWT in compact form")
	}
	return attestation, nil
}

// send makes the proofs for this send, sends a copy of req with them, and takes
// note of what the response says about freshness. It returns what the response
// offers, which is not yet kept, and the error code, if it is a refusal.
func (t *Transport) send(req *http.Request, s *server, a attempt) (resp *http.Response, offered offer, code string, err error) {
	ctx := req.Context()
	out := req.Clone(ctx)
	if err := t.sign(ctx, out, s, a); err != nil {
		if a.number == 1 {
			closeBody(req)
		}
		return nil, offer{}, "", t.fail(s, a, stepSign, err)
	}
	if a.number > 1 && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, offer{}, "", t.fail(s, a, stepRetry, err)
		}
		out.Body = body
	}
	event := TraceEvent{Start: time.Now(), Audience: s.audience, Send: a.number}
	resp, err = t.base.RoundTrip(out)
	event.Duration = time.Since(event.Start)
	if event.Err = err; err != nil {
		s.answered(a, "", false)
		t.trace.request(ctx, event)
		return nil, offer{}, "", t.fail(s, a, stepSend, err)
	}

	code = refusalCode(resp, s.profile, t.dpopSigner(s, req) != nil)
	s.answered(a, s.cause(code), resp.StatusCode < 300)
	event.Status, event.Code = resp.StatusCode, code
	t.trace.request(ctx, event)
	return resp, s.offerOf(resp), code, nil
}

// sign sets the header fields of client authentication.
func (t *Transport) sign(ctx context.Context, out *http.Request, s *server, a attempt) error {
	if out.Header == nil {
		out.Header = make(http.Header)
	}
	remove(out.Header, credentials...)
	if s.prefix == "" {
		// With one of these net/http repeats a POST by itself on a new
		// connection, and the server would see one PoP twice.
		remove(out.Header, "Idempotency-Key", "X-Idempotency-Key")
	}
	if !s.unattested {
		out.Header.Set(HeaderAttestation, a.attestation)
	}
	if s.sendsPoP() {
		pop, err := t.signPoP(ctx, s, a)
		if err != nil {
			return err
		}
		out.Header.Set(HeaderAttestationPoP, pop)
	}
	if key := t.dpopSigner(s, out); key != nil {
		token := ""
		if s.prefix != "" {
			_, token = accessToken(out)
		}
		proof, err := signDPoP(ctx, key, out, a.nonce.value(), token)
		if err != nil {
			return err
		}
		remove(out.Header, HeaderDPoP)
		out.Header.Set(HeaderDPoP, proof)
	}
	return t.checkHeaderSize(ctx, s, out.Header)
}

// next returns what to send after a refusal; again is false if there is
// nothing new to send. What the refusal offers for its cause is for this retry
// alone. lastChallenge says that a challenge was refused before, so that the next
// one must be good.
func (t *Transport) next(ctx context.Context, req *http.Request, s *server, a attempt, cause string, offered offer, lastChallenge bool) (next attempt, again bool, err error) {
	a.number++
	switch {
	case cause == codeUseFreshAttestation && !s.unattested:
		s.keep(offered)
		if a.attestation, err = t.attestation(ctx, a.attestation); err != nil {
			return a, false, err
		}
		again = true
	case cause == codeUseChallenge && s.sendsPoP():
		s.nonces.store(offered.nonce)
		a.challenge, again, err = s.challenges.retry(ctx, a.challenge, offered.challenge)
	case cause == codeUseDPoPNonce && t.dpopSigner(s, req) != nil:
		s.challenges.store(offered.challenge)
		a.nonce, again, err = s.nonces.retry(ctx, a.nonce, offered.nonce)
	default:
		s.keep(offered)
	}
	if err != nil && ctx.Err() == nil {
		// The refusal says more than that nothing new is to be had.
		t.log.WarnContext(ctx, "transport: nothing new for the retry", "audience", s.audience, "cause", cause, "error", err)
		return a, false, nil
	}
	// The server may have used up what else was sent. A nonce that is at hand in
	// its place may be another request's; the one that was sent may not be used up.
	switch {
	case !again || cause == codeUseChallenge || !s.sendsPoP():
	case lastChallenge:
		a.challenge, err = s.challenges.takeUnused(ctx)
	default:
		a.challenge, err = s.challenges.take(ctx)
	}
	if again && err == nil && cause != codeUseDPoPNonce && s.nonces.hasSpare() {
		a.nonce, err = t.nonce(ctx, req, s)
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

// A refusal is a response that refuses a request. The zero refusal is none.
type refusal struct {
	status int
	code   string
}

// returned makes a response fit for the caller: the request that it names is
// the caller's, since what was sent holds credentials.
func returned(resp *http.Response, req *http.Request, a attempt, code string) *http.Response {
	resp.Request = req.WithContext(context.WithValue(req.Context(), outcomeKey{}, outcome{a.number, code}))
	return resp
}

type outcomeKey struct{}

// An outcome is what a response tells of its request.
type outcome struct {
	sends int
	code  string
}

func outcomeOf(resp *http.Response) outcome {
	if resp == nil || resp.Request == nil {
		return outcome{}
	}
	o, _ := resp.Request.Context().Value(outcomeKey{}).(outcome)
	return o
}

// Sends returns how often a request was sent until this response came: 1 to 4
// for one that a Transport has authenticated, 0 for any other.
func Sends(resp *http.Response) int { return outcomeOf(resp).sends }

// Code returns the OAuth error code of a refusal (400 or 401) of a request that
// a Transport has authenticated, from the response's body or its WWW-Authenticate
// field, where some authorization servers and all resources put it; "" if there
// is none. It is the server's text: print it quoted and cut.
func Code(resp *http.Response) string { return outcomeOf(resp).code }
