// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"net/http"

	"github.com/instancekey/instancekey/transport"
)

// serveChallenge is the challenge endpoint: no authentication, no body.
func (s *Server) serveChallenge(w http.ResponseWriter, p Policy, r *Request) {
	status, reason := http.StatusOK, ""
	switch {
	case r.Method != http.MethodPost:
		status, reason = http.StatusMethodNotAllowed, "method "+r.Method
	case len(r.Body) > 0 || len(r.Header.Values(transport.HeaderAttestation)) > 0 || len(r.Header.Values(transport.HeaderAttestationPoP)) > 0:
		status, reason = http.StatusBadRequest, "challenge request with a body or with credentials"
	}
	answer := map[string]any{}
	if p.Kind != NoChallenges && !p.Combined && status == http.StatusOK {
		answer["attestation_challenge"] = s.challenges.offer(p, false)
	}
	if p.Nonces {
		w.Header().Set(transport.HeaderDPoPNonce, s.nonces.offer())
	}
	s.settle(func() { r.Status, r.Reason = status, reason })
	if p.After != nil {
		p.After(s.snapshot(r))
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, answer)
}

func (s *Server) metadata(p Policy) map[string]any {
	method := string(transport.MethodPoP)
	if p.Combined {
		method = string(transport.MethodDPoP)
	}
	m := map[string]any{
		"issuer":                                              s.Issuer,
		"token_endpoint":                                      s.Endpoint(Token),
		"pushed_authorization_request_endpoint":               s.Endpoint(PAR),
		"introspection_endpoint":                              s.Endpoint(Introspection),
		"revocation_endpoint":                                 s.Endpoint(Revocation),
		"token_endpoint_auth_methods_supported":               []string{method},
		"client_attestation_signing_alg_values_supported":     []string{"ES256"},
		"client_attestation_pop_signing_alg_values_supported": []string{"ES256"},
		"dpop_signing_alg_values_supported":                   []string{"ES256"},
	}
	for _, name := range s.further {
		m[name+"_endpoint"] = s.Endpoint(name)
	}
	if !p.NoEndpoint {
		m["challenge_endpoint"] = s.Endpoint(Challenge)
	}
	return m
}
