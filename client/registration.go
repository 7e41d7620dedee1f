// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"

	"github.com/instancekey/instancekey/transport"
)

// Registration is what a client says of itself when it is registered with a
// server: the members of its client metadata (RFC 7591, section 2) that this
// package has a say in. Its JSON is for a registration request, or for the
// operator who registers the client by hand; client_name, grant_types,
// redirect_uris and the rest are to be added.
type Registration struct {
	// TokenEndpointAuthMethod is how the client authenticates (draft, "Client
	// Metadata").
	TokenEndpointAuthMethod transport.Method `json:"token_endpoint_auth_method"`

	// AttestationSigningAlgs are the JWS algorithms of its attestations. Empty
	// if these are the business of an attester elsewhere: the operator fills
	// them in, and "none" is not one.
	AttestationSigningAlgs []string `json:"client_attestation_signing_alg_values_supported,omitempty"`

	// AttestationPoPSigningAlgs are the JWS algorithms of its PoP JWTs. Empty in
	// combined mode, which has none.
	AttestationPoPSigningAlgs []string `json:"client_attestation_pop_signing_alg_values_supported,omitempty"`

	// PoPMethods are the mechanisms by which it proves possession.
	PoPMethods []string `json:"client_attestation_pop_methods_supported,omitempty"`

	// DPoPBoundAccessTokens: it always asks for DPoP-bound tokens (RFC 9449,
	// section 5.2).
	DPoPBoundAccessTokens bool `json:"dpop_bound_access_tokens,omitempty"`
}

// Registration describes the Client as it is configured. It sends nothing. If
// Config.Method is empty, the server's metadata decides the method. Registration says PoP
// JWT as long as the metadata is not known: call [Client.Metadata] first.
//
// One registration is for all instances of a client. The result lists the algorithm of
// this instance's key only. If other instances have keys of other algorithms, add these.
func (c *Client) Registration() Registration {
	method := c.knownMethod()
	if method == "" {
		method = transport.MethodPoP
	}
	r := Registration{
		TokenEndpointAuthMethod: method,
		PoPMethods:              []string{popMethods[method]},
		DPoPBoundAccessTokens:   c.tokenKey(method) != nil,
	}
	if method == transport.MethodPoP {
		r.AttestationPoPSigningAlgs = []string{c.key.Algorithm()}
	}
	// A MAC's key is shared with the server, and its algorithm the operator's to
	// announce.
	if alg := c.attestationAlg(); alg != "" && alg != "none" && !strings.HasPrefix(alg, "HS") {
		r.AttestationSigningAlgs = []string{alg}
	}
	return r
}

// attestationAlg returns the algorithm of the attestations, "" if the Client
// does not know it.
func (c *Client) attestationAlg() string {
	switch a := c.attestations.attester.(type) {
	case SelfAttester:
		return a.Key.Algorithm()
	case *SelfAttester:
		return a.Key.Algorithm()
	}
	return ""
}
