package authserver

import (
	"net/http"
	"net/url"
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

// A clientInstance is who has authenticated.
type clientInstance struct {
	client     Client
	thumbprint string // of the Client Instance Key
	// dpopThumbprint is the key to which access tokens are bound; "" if the
	// request had no DPoP proof. In combined mode it is thumbprint.
	dpopThumbprint string
}

// authenticate authenticates the Client Instance that sent a request to an
// endpoint of this server, checks the DPoP proof if there is one, and applies
// the policy. It chooses the rules as section 7 says, and falls back from none
// to another.
func (s *Server) authenticate(r *http.Request, endpoint string, form url.Values) (*clientInstance, error) {
	attestations := r.Header.Values(headerAttestation)
	if method := otherAuthentication(r, form); method != "" {
		// RFC 6749, section 2.3: one authentication method in each request.
		return nil, refuse(errInvalidRequest, "RFC 6749 2.3", "client also authenticates with %s", method)
	}
	if len(attestations) == 0 {
		return nil, refuse(errInvalidClient, "7.1(1)", "no %s header field", headerAttestation)
	}
	attestation, err := s.verifyAttestation(attestations, form.Get("client_id"))
	if err != nil {
		return nil, err
	}
	client, ok := s.clients[attestation.subject]
	if !ok {
		return nil, refuse(errInvalidClient, "RFC 6749 5.2", "client %.80q is not registered", attestation.subject)
	}
	instance := &clientInstance{client: client, thumbprint: attestation.thumbprint}
	if err := s.verifyProof(r, endpoint, attestation, instance); err != nil {
		return nil, err
	}
	if err := s.checkPolicy(attestation); err != nil {
		return nil, err
	}
	return instance, nil
}

// verifyProof checks that the sender holds the key of the attestation, and which
// key access tokens are to be bound to.
func (s *Server) verifyProof(r *http.Request, endpoint string, attestation *verifiedAttestation, instance *clientInstance) (err error) {
	pops := r.Header.Values(headerPoP)
	proofs := r.Header.Values(headerDPoP)
	method := instance.client.Method
	switch {
	case len(pops) > 0: // first rule of section 7
		if method != MethodPoP {
			return refuse(errInvalidClient, "7.3(1)", "client is registered for %s, request has a PoP JWT", method)
		}
		if err := s.verifyPoP(pops, attestation); err != nil {
			return err
		}
		if len(proofs) > 0 {
			// The client is authenticated. This proof only says which key the
			// access token is bound to, and that may be any key.
			instance.dpopThumbprint, err = s.verifyDPoP(proofs, r.Method, endpoint)
		}
		return err

	case len(proofs) > 0: // second rule: combined mode
		if !slices.Contains(s.methods, MethodDPoP) { // third rule
			return refuse(errInvalidClientAttestation, "7", "combined mode is not supported")
		}
		if method != MethodDPoP {
			return refuse(errInvalidClient, "7", "client is registered for %s, request uses combined mode", method)
		}
		instance.dpopThumbprint = attestation.thumbprint
		return s.verifyCombined(proofs, r.Method, endpoint, attestation)

	default:
		return refuse(errInvalidClientAttestation, "7.2(1)", "attestation without a proof of possession")
	}
}

// otherAuthentication names the authentication method, other than ours, that a
// request uses; "" if it uses none.
func otherAuthentication(r *http.Request, form url.Values) string {
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
