package transport

import (
	"context"
	"net/http"
	"sync"

	"golang.org/x/sync/singleflight"
)

// nonces is the DPoP nonce of one server: the most recent one, from any
// response (RFC 9449, section 8.2). A nonce is used until another one comes.
type nonces struct {
	flight singleflight.Group

	mu     sync.Mutex
	latest string
	barren bool // the challenge endpoint was asked, and has no nonces to give
}

// store remembers the nonce that came with a response, if one did.
func (n *nonces) store(h http.Header) {
	value := h.Get(HeaderDPoPNonce)
	if value == "" || len(value) > maxChallenge {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latest = value
}

// asked notes that the challenge endpoint has answered, with a nonce or without.
func (n *nonces) asked() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.barren = n.latest == ""
}

func (n *nonces) current() (latest string, barren bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest, n.barren
}

// nonce returns the nonce for the next DPoP proof to s, "" to go without. If
// none is known, the challenge endpoint may have one and save a refusal (draft,
// "Challenge Endpoint").
func (s *server) nonce(ctx context.Context) (string, error) {
	latest, barren := s.nonces.current()
	if latest != "" || barren || s.challenges.fetch == nil {
		return latest, nil
	}
	return shared(ctx, &s.nonces.flight, func(ctx context.Context) (string, error) {
		if latest, _ := s.nonces.current(); latest != "" {
			return latest, nil // another caller's fetch was just before ours
		}
		challenge, err := s.challenges.fetch(ctx)
		if err != nil {
			return "", err
		}
		s.challenges.store(challenge)
		latest, _ := s.nonces.current()
		return latest, nil
	})
}
