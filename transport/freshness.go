package transport

import (
	"cmp"
	"context"
	"net/http"
)

// An offer is what a response brings for the requests to come; "" is none. A
// DPoP nonce (RFC 9449, section 8) is kept and used as a challenge is: its
// lifetime and reuse are the server's to decide as well.
type offer struct{ challenge, nonce string }

// offerIn returns what came in a response's header, without what is too long to
// send back.
func offerIn(h http.Header) offer {
	field := func(name string) string {
		if value := h.Get(name); len(value) <= maxChallenge {
			return value
		}
		return ""
	}
	return offer{field(HeaderChallenge), field(HeaderDPoPNonce)}
}

// offerOf returns what a response of s offers.
func (s *server) offerOf(resp *http.Response) offer {
	offered := offerIn(resp.Header)
	if s.challengeIsNonce() {
		return offer{nonce: cmp.Or(offered.challenge, offered.nonce)}
	}
	return offered
}

// keep keeps what a response offered for requests to come.
func (s *server) keep(offered offer) {
	s.challenges.store(offered.challenge)
	s.nonces.store(offered.nonce)
}

// answered takes note of what the server makes of the values that were sent. cause
// is the code of what it refuses the request for.
func (s *server) answered(a attempt, cause string, accepted bool) {
	s.challenges.answered(a.challenge, cause == codeUseChallenge, accepted)
	s.nonces.answered(a.nonce, cause == codeUseDPoPNonce, accepted)
}

// challengeIsNonce reports whether challenge and DPoP nonce are one value, as
// draft -10 has it in combined mode. s.nonces then keeps it.
func (s *server) challengeIsNonce() bool {
	return s.method == MethodDPoP && s.profile == ProfileDraft10
}

// cause returns the code of what a refusal asks to send another one of: where
// challenge and nonce are one value, a server may say either.
func (s *server) cause(code string) string {
	if code == codeUseChallenge && s.challengeIsNonce() {
		return codeUseDPoPNonce
	}
	return code
}

// nonce returns the nonce for the DPoP proof of a request, if it has one. The
// challenge endpoint may give one and save a refusal (draft, "Challenge
// Endpoint"); if it fails, there is still the refusal.
func (t *Transport) nonce(ctx context.Context, req *http.Request, s *server) (use, error) {
	if t.dpopSigner(s, req) == nil {
		return use{}, nil
	}
	nonce, err := s.nonces.take(ctx)
	if err == nil || s.challengeIsNonce() || ctx.Err() != nil || t.closed.Err() != nil {
		return nonce, err
	}
	t.log.WarnContext(ctx, "transport: no DPoP nonce from the challenge endpoint, going on without", "audience", s.audience, "error", err)
	return use{}, nil
}

// setFetchers lets challenges and nonces of s come from its challenge endpoint,
// both with one request.
func (t *Transport) setFetchers(s *server, url string) {
	if s.challengeIsNonce() {
		s.nonces.fetch = func(ctx context.Context) (string, error) {
			offered, err := t.ask(ctx, s, url)
			return cmp.Or(offered.challenge, offered.nonce), err
		}
		return
	}
	s.challenges.fetch = func(ctx context.Context) (string, error) {
		offered, err := t.ask(ctx, s, url)
		if err == nil || offered.nonce != "" {
			s.nonces.fetched(offered.nonce)
		}
		return offered.challenge, err
	}
	s.nonces.fetch = func(ctx context.Context) (string, error) {
		offered, err := t.ask(ctx, s, url)
		switch {
		case err == nil:
			s.challenges.fetched(offered.challenge)
		case ctx.Err() != context.Canceled:
			// Proofs can do without: the others need not wait for this again.
			s.nonces.fetched("")
		}
		return offered.nonce, err
	}
}
