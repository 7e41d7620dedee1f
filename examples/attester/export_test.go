// SPDX-License-Identifier: Apache-2.0

package attester

import "github.com/instancekey/instancekey/examples/internal/freshness"

// Shrink makes the server's memory smaller by that factor, so that a test can
// fill it.
func (s *Server) Shrink(factor int) {
	clock := freshness.Monotone(s.cfg.Now)
	s.challenges = freshness.NewChallenges(challengeLifetime, clock)
	s.spent = freshness.NewSeen(challengeLifetime, replayCapacity/factor, clock)
	s.sessions = freshness.NewSealer(sessionLifetime, clock)
	s.answered = freshness.NewSeen(sessionLifetime, maxAnswered/factor, clock)
}

// Spend uses a challenge up.
func (s *Server) Spend(challenge string) error {
	return spend(s.spent, challenge, codeInvalidChallenge)
}
