// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"crypto/sha256"
	"fmt"
	"net/http"

	"github.com/instancekey/instancekey/transport"
)

// VerifyAttestation verifies the attestation, by the Server's Attester, and the PoP JWT
// of a request to the protected resource of this identifier. It does not look at the
// challenge. It returns the thumbprint of the Client Instance Key.
func (s *Server) VerifyAttestation(h http.Header, identifier string) (keyThumbprint string, err error) {
	raw, err := field(h, transport.HeaderAttestation)
	if err != nil {
		return "", err
	}
	cnf, err := s.checkAttestation(raw)
	if err != nil {
		return "", fmt.Errorf("attestation: %w", err)
	}
	if _, err := s.checkPoP(s.currentPolicy(), h, identifier, cnf); err != nil {
		return "", fmt.Errorf("PoP: %w", err)
	}
	return thumbprint(cnf), nil
}

// VerifyDPoP verifies the DPoP proof of a request to a protected resource (RFC 9449,
// section 7) with this method, URL and access token. It does not look at the nonce. It
// returns the thumbprint of the proof's key.
func (s *Server) VerifyDPoP(h http.Header, method, url, accessToken string) (keyThumbprint string, err error) {
	proof, key, err := s.checkDPoP(s.currentPolicy(), h, method, url)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(accessToken))
	if proof.Claims["ath"] != rawURL.EncodeToString(sum[:]) {
		return "", fmt.Errorf("ath is %v", proof.Claims["ath"])
	}
	return thumbprint(key), nil
}
