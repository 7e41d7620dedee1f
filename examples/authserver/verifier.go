// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/instancekey/instancekey/examples/internal/freshness"
)

// A verifier verifies what Client Instances send to one audience: to the
// authorization server or to its resource, of which sections 6 and 7 ask the
// same. Each has a verifier of its own, so that no challenge, nonce or proof
// made for the one is good at the other, though both are one process.
type verifier struct {
	cfg             Config                 // the server's; Challenges and DPoPNonces are this audience's own
	audience        string                 // issuer or resource identifier
	trust           *atomic.Pointer[trust] // the server's
	started         time.Time              // see checkProofTime
	challenges      *freshness.Challenges  // nil: not used
	nonces          *freshness.Challenges  // nil: not used
	spentChallenges *freshness.Seen        // nil: challenges may be used again
	seenPoPs        *freshness.Seen
	seenDPoPProofs  *freshness.Seen
}

func newVerifier(cfg Config, audience string, trust *atomic.Pointer[trust]) *verifier {
	clock := freshness.Monotone(cfg.Now)
	v := &verifier{
		cfg:      cfg,
		audience: audience,
		trust:    trust,
		started:  cfg.Now().Truncate(time.Second),
		// A proof passes the iat check from clockSkew before its iat until
		// ProofWindow after it.
		seenPoPs:       freshness.NewSeen(cfg.ProofWindow+clockSkew, replayCapacity, clock),
		seenDPoPProofs: freshness.NewSeen(cfg.ProofWindow+clockSkew, replayCapacity, clock),
	}
	if cfg.DPoPNonces {
		v.nonces = freshness.NewChallenges(5*time.Minute, clock)
	}
	if c := cfg.Challenges; c != nil {
		v.challenges = freshness.NewChallenges(c.Lifetime, clock)
		if c.SingleUse {
			v.spentChallenges = freshness.NewSeen(c.Lifetime, replayCapacity, clock)
		}
	}
	return v
}

// A verifiedProof is what the sender of a request has proven.
type verifiedProof struct {
	// dpopThumbprint is the key of the DPoP proof; "" if the request had none.
	// In combined mode it is the Client Instance Key.
	dpopThumbprint string
	// reqHash is the message that the PoP JWT vouches for; nil: none.
	reqHash *messageHash
}

// verifyProof checks that the sender of a request holds the key of its
// attestation. It chooses the rules as section 7 says, and falls back from none
// to another. allow refuses a method (MethodPoP or MethodDPoP) that is not for
// this sender.
func (v *verifier) verifyProof(r *http.Request, made target, attestation *verifiedAttestation, allow func(method string) error) (proof verifiedProof, err error) {
	pops := r.Header.Values(headerPoP)
	proofs := r.Header.Values(headerDPoP)
	switch {
	case len(pops) > 0: // first rule of section 7
		if err := allow(MethodPoP); err != nil {
			return proof, err
		}
		if proof.reqHash, err = v.verifyPoP(r.Context(), pops, attestation); err != nil {
			return proof, err
		}
		if len(proofs) > 0 {
			// The sender is authenticated. This proof only says which key the
			// access token is bound to, and that may be any key.
			proof.dpopThumbprint, err = v.verifyDPoP(r.Context(), proofs, made)
		}
		return proof, err

	case len(proofs) > 0: // second rule: combined mode
		if err := allow(MethodDPoP); err != nil { // and third rule
			return proof, err
		}
		proof.dpopThumbprint = attestation.thumbprint
		return proof, v.verifyCombined(r.Context(), proofs, made, attestation)

	default:
		return proof, refuse(errInvalidClientAttestation, "7.2(1)", "attestation without a proof of possession")
	}
}
