// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"net/http"
	"slices"
)

// HTTP header fields (sections 4, 5.1 and 6.2; RFC 9449).
const (
	headerAttestation = "OAuth-Client-Attestation"
	headerPoP         = "OAuth-Client-Attestation-PoP"
	headerChallenge   = "OAuth-Client-Attestation-Challenge"
	headerDPoP        = "DPoP"
	headerDPoPNonce   = "DPoP-Nonce"
)

// A clientInstance is who has authenticated. Access tokens are bound to the key
// of its DPoP proof, if it has sent one.
type clientInstance struct {
	verifiedProof
	client     Client
	thumbprint string // of the Client Instance Key
}

func (i *clientInstance) binding() binding { return binding{i.client.ID, i.thumbprint} }

// authenticate authenticates the Client Instance that sent a request to an
// endpoint of this server, checks the DPoP proof if there is one, and applies
// the policy.
func (s *Server) authenticate(r *http.Request, endpoint string, form *form) (*clientInstance, error) {
	attestations := r.Header.Values(headerAttestation)
	if method := otherAuthentication(r, form); method != "" {
		// RFC 6749, section 2.3: one authentication method in each request.
		return nil, refuse(errInvalidRequest, "RFC 6749 2.3", "client also authenticates with %s", method)
	}
	if len(attestations) == 0 {
		return nil, refuse(errInvalidClient, "7.1(1)", "no %s header field", headerAttestation)
	}
	attestation, err := s.verifier.verifyAttestation(attestations, form.Get("client_id"))
	if err != nil {
		return nil, err
	}
	client, ok := s.clients[attestation.subject]
	if !ok {
		return nil, refuse(errInvalidClient, "RFC 6749 5.2", "client %.80q is not registered", attestation.subject)
	}
	proof, err := s.verifier.verifyProof(r, target{method: r.Method, uri: endpoint}, attestation,
		func(method string) error { return s.allowMethod(client, method) })
	if err != nil {
		return nil, err
	}
	if err := attestation.appraise(s.cfg.Now()); err != nil {
		return nil, err
	}
	return &clientInstance{verifiedProof: proof, client: client, thumbprint: attestation.thumbprint}, nil
}

// allowMethod refuses every method but the one that the client is registered
// for (section 7).
func (s *Server) allowMethod(client Client, method string) error {
	switch {
	case method == client.Method:
		return nil
	case method == MethodPoP:
		return refuse(errInvalidClient, "7.3(1)", "client is registered for %s, request has a PoP JWT", client.Method)
	case !slices.Contains(s.methods, MethodDPoP):
		return refuse(errInvalidClientAttestation, "7", "combined mode is not supported")
	default:
		return refuse(errInvalidClient, "7", "client is registered for %s, request uses combined mode", client.Method)
	}
}

// otherAuthentication names the authentication method, other than ours, that a
// request uses; "" if it uses none.
func otherAuthentication(r *http.Request, form *form) string {
	if len(r.Header.Values("Authorization")) > 0 {
		return "Authorization"
	}
	for _, parameter := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		if form.Has(parameter) {
			return parameter
		}
	}
	return ""
}
