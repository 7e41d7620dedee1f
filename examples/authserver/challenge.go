package authserver

import (
	"errors"
	"net/http"

	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// serveChallenge is the challenge endpoint (section 6.3). It needs no client
// authentication: challenges cost nothing to make and prove nothing.
func (s *Server) serveChallenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	challenge := s.challenges.New()
	if s.cfg.Challenges.Responses {
		w.Header().Set(headerChallenge, challenge)
	}
	s.offerDPoPNonce(w)
	serve.JSON(w, http.StatusOK, map[string]string{"attestation_challenge": challenge})
}

// offerChallenge puts a fresh challenge on a response (section 6.2).
func (s *Server) offerChallenge(w http.ResponseWriter) {
	if s.challenges != nil && s.cfg.Challenges.Responses {
		w.Header().Set(headerChallenge, s.challenges.New())
	}
}

// offerDPoPNonce puts a fresh DPoP nonce on a response (RFC 9449, section 8.2;
// on the challenge endpoint it is demanded by section 6.3).
func (s *Server) offerDPoPNonce(w http.ResponseWriter) {
	if s.nonces != nil {
		w.Header().Set(headerDPoPNonce, s.nonces.New())
	}
}

// checkChallenge: section 7.2, item 5. A server that provides no challenges
// ignores the claim.
func (s *Server) checkChallenge(challenge *string) error {
	if s.challenges == nil {
		return nil
	}
	if challenge == nil {
		return refuse(errUseAttestationChallenge, "7.2(5)", "no challenge")
	}
	if err := s.challenges.Check(*challenge); err != nil {
		return refuse(errUseAttestationChallenge, "7.2(5)", "%v", err)
	}
	return nil
}

// spendChallenge uses a single-use challenge up (section 6). It needs a
// challenge that passed checkChallenge.
func (s *Server) spendChallenge(challenge *string) error {
	if s.spentChallenges == nil {
		return nil
	}
	switch err := s.spentChallenges.Add(*challenge); {
	case errors.Is(err, freshness.ErrSeen):
		return refuse(errUseAttestationChallenge, "7.2(5)", "single-use challenge: %v", err)
	case err != nil:
		return refuseReplayMemory("7.2(5)", err)
	}
	return nil
}
