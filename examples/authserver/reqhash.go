// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"strings"
)

// ruleReqHash is what refusals because of a req_hash are logged under: the
// claim was proposed for the draft and is not part of it.
const ruleReqHash = "req_hash"

// A messageHash says which message a PoP JWT vouches for, by its claim
// "req_hash": base64url of the left half of the hash of the message's octets,
// with the hash function of the PoP JWT's alg (as at_hash in OpenID Connect
// Core, section 3.1.3.6).
type messageHash struct {
	value string
	hash  crypto.Hash
}

// newMessageHash returns nil for a PoP JWT without the claim.
func newMessageHash(value, algorithm string) (*messageHash, error) {
	switch {
	case value == "":
		return nil, nil
	case strings.HasSuffix(algorithm, "256"):
		return &messageHash{value, crypto.SHA256}, nil
	case strings.HasSuffix(algorithm, "384"):
		return &messageHash{value, crypto.SHA384}, nil
	case strings.HasSuffix(algorithm, "512"), algorithm == "EdDSA": // that is, with Ed25519
		return &messageHash{value, crypto.SHA512}, nil
	default:
		return nil, refuse(errInvalidClientAttestation, ruleReqHash, "no hash function is known for %.20q", algorithm)
	}
}

func (h *messageHash) isOf(octets []byte) bool {
	hash := h.hash.New()
	hash.Write(octets)
	sum := hash.Sum(nil)
	return h.value == base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// checkReqHash refuses a req_hash that fits none of the messages, octet by octet
// as they arrived: the request's own body, or an earlier message of the same
// instance. Without a req_hash nothing is refused.
func (p verifiedProof) checkReqHash(messages ...[]byte) error {
	if p.reqHash == nil {
		return nil
	}
	for _, octets := range messages {
		if p.reqHash.isOf(octets) {
			return nil
		}
	}
	return refuse(errInvalidClientAttestation, ruleReqHash, "req_hash fits no message as it arrived: something was changed on the way")
}
