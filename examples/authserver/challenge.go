// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"errors"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/serve"
)

// ChallengeConfig says how challenges are handed out (section 6). Who has one
// demands a challenge in every PoP JWT, and gives a fresh one with every
// use_attestation_challenge error, also when both fields Endpoint and Responses
// are false.
type ChallengeConfig struct {
	Endpoint  bool          // section 6.3: a challenge endpoint, named in the metadata
	Responses bool          // section 6.2: a new one on every response, of the challenge endpoint too
	SingleUse bool          // each challenge is good for one PoP JWT; otherwise for any number
	Lifetime  time.Duration // 0 means 5 minutes
}

func (c *ChallengeConfig) withDefaults() *ChallengeConfig {
	if c == nil {
		return nil
	}
	copied := *c
	if copied.Lifetime == 0 {
		copied.Lifetime = 5 * time.Minute
	}
	return &copied
}

// serveChallenge is the challenge endpoint (section 6.3). It needs no client
// authentication: challenges cost nothing to make and prove nothing.
func (v *verifier) serveChallenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	challenge := v.challenges.New()
	if v.cfg.Challenges.Responses {
		w.Header().Set(headerChallenge, challenge)
	}
	v.offerDPoPNonce(w)
	serve.JSON(w, http.StatusOK, map[string]string{"attestation_challenge": challenge})
}

// challengeEndpoint returns the URL of the challenge endpoint below base, "" if
// there is none.
func (v *verifier) challengeEndpoint(base string) string {
	if v.cfg.Challenges == nil || !v.cfg.Challenges.Endpoint {
		return ""
	}
	return base + "/challenge"
}

// offer puts a fresh challenge (section 6.2) and a fresh DPoP nonce on a
// response, where they are used.
func (v *verifier) offer(w http.ResponseWriter) {
	v.offerDPoPNonce(w)
	if v.challenges != nil && v.cfg.Challenges.Responses {
		w.Header().Set(headerChallenge, v.challenges.New())
	}
}

// offerDPoPNonce puts a fresh DPoP nonce on a response (RFC 9449, section 8.2;
// on the challenge endpoint it is demanded by section 6.3).
func (v *verifier) offerDPoPNonce(w http.ResponseWriter) {
	if v.nonces != nil {
		w.Header().Set(headerDPoPNonce, v.nonces.New())
	}
}

// checkChallenge: section 7.2, item 5. A server that provides no challenges
// ignores the claim.
func (v *verifier) checkChallenge(challenge *string) error {
	if v.challenges == nil {
		return nil
	}
	if challenge == nil {
		return refuse(errUseAttestationChallenge, "7.2(5)", "no challenge")
	}
	if err := v.challenges.Check(*challenge); err != nil {
		return refuse(errUseAttestationChallenge, "7.2(5)", "%v", err)
	}
	return nil
}

// spendChallenge uses a single-use challenge up (section 6). It needs a
// challenge that passed checkChallenge.
func (v *verifier) spendChallenge(challenge *string) error {
	if v.spentChallenges == nil {
		return nil
	}
	switch err := v.spentChallenges.Add(*challenge); {
	case errors.Is(err, freshness.ErrSeen):
		return refuse(errUseAttestationChallenge, "7.2(5)", "single-use challenge: %v", err)
	case err != nil:
		return refuseReplayMemory("7.2(5)", err)
	}
	return nil
}
