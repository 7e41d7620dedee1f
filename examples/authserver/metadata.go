// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

// metadata is the RFC 8414 document, with the draft's members (section 8).
// client_attestation_pop_methods_supported is not among them: it announces
// attestations as a signal beside another client authentication (section 7.6),
// and this server accepts none beside.
type metadata struct {
	Issuer        string `json:"issuer"`
	TokenEndpoint string `json:"token_endpoint"`
	*codeMetadata
	JWKSURI                  string                    `json:"jwks_uri"`
	ChallengeEndpoint        string                    `json:"challenge_endpoint,omitempty"`
	GrantTypes               []string                  `json:"grant_types_supported"`
	Scopes                   []string                  `json:"scopes_supported,omitempty"`
	TokenEndpointAuthMethods []string                  `json:"token_endpoint_auth_methods_supported"`
	AttestationAlgorithms    []jose.SignatureAlgorithm `json:"client_attestation_signing_alg_values_supported"`
	PoPAlgorithms            []jose.SignatureAlgorithm `json:"client_attestation_pop_signing_alg_values_supported"`
	DPoPAlgorithms           []jose.SignatureAlgorithm `json:"dpop_signing_alg_values_supported"`
}

// codeMetadata are the members for the authorization code grant (RFC 8414, RFC
// 9126, RFC 9207).
type codeMetadata struct {
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	PAREndpoint           string   `json:"pushed_authorization_request_endpoint"`
	RequirePAR            bool     `json:"require_pushed_authorization_requests"`
	ResponseTypes         []string `json:"response_types_supported"`
	CodeChallengeMethods  []string `json:"code_challenge_methods_supported"`
	IssuerParameter       bool     `json:"authorization_response_iss_parameter_supported"`
}

func (s *Server) newMetadata(base string) metadata {
	m := metadata{
		Issuer:                   s.cfg.Issuer,
		TokenEndpoint:            s.tokenEndpoint,
		JWKSURI:                  base + "/jwks",
		ChallengeEndpoint:        s.verifier.challengeEndpoint(base),
		GrantTypes:               []string{grantClientCredentials},
		TokenEndpointAuthMethods: s.methods,
		AttestationAlgorithms:    s.cfg.AttestationAlgorithms,
		PoPAlgorithms:            s.cfg.ProofAlgorithms,
		DPoPAlgorithms:           s.cfg.ProofAlgorithms,
	}
	if s.cfg.RefreshTokens {
		m.GrantTypes = append(m.GrantTypes, grantRefreshToken)
	}
	if s.grantsCodes() {
		m.GrantTypes = append(m.GrantTypes, grantCode)
		m.codeMetadata = &codeMetadata{
			AuthorizationEndpoint: base + "/authorize",
			PAREndpoint:           s.parEndpoint,
			RequirePAR:            true,
			ResponseTypes:         []string{"code"},
			CodeChallengeMethods:  []string{"S256"},
			IssuerParameter:       true,
		}
	}
	for _, client := range s.clients {
		m.Scopes = append(m.Scopes, client.Scopes...)
	}
	slices.Sort(m.Scopes)
	m.Scopes = slices.Compact(m.Scopes)
	return m
}

func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	serve.JSON(w, http.StatusOK, s.metadata)
}

// serveJWKS publishes the key that verifies the access tokens.
func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	serve.JSON(w, http.StatusOK, s.tokens.public)
}

// resourceMetadata is the RFC 9728 document, with the draft's members.
type resourceMetadata struct {
	Resource              string                    `json:"resource"`
	AuthorizationServers  []string                  `json:"authorization_servers"`
	BearerMethods         []string                  `json:"bearer_methods_supported"`
	ChallengeEndpoint     string                    `json:"challenge_endpoint,omitempty"`
	PoPMethods            []string                  `json:"client_attestation_pop_methods_supported"`
	AttestationAlgorithms []jose.SignatureAlgorithm `json:"client_attestation_signing_alg_values_supported"`
	PoPAlgorithms         []jose.SignatureAlgorithm `json:"client_attestation_pop_signing_alg_values_supported"`
	DPoPAlgorithms        []jose.SignatureAlgorithm `json:"dpop_signing_alg_values_supported"`
	DPoPRequired          bool                      `json:"dpop_bound_access_tokens_required,omitempty"`
}

// popMethods are the values of client_attestation_pop_methods_supported (section
// 7.6), by the authentication methods with the same proof.
var popMethods = map[string]string{MethodPoP: "attestation_pop_jwt", MethodDPoP: "dpop_combined"}

func (rs *resource) serveMetadata(w http.ResponseWriter, r *http.Request) {
	m := resourceMetadata{
		Resource:              rs.audience,
		AuthorizationServers:  []string{rs.cfg.Issuer},
		BearerMethods:         []string{"header"},
		ChallengeEndpoint:     rs.challengeEndpoint(strings.TrimSuffix(rs.audience, "/")),
		AttestationAlgorithms: rs.cfg.AttestationAlgorithms,
		PoPAlgorithms:         rs.cfg.ProofAlgorithms,
		DPoPAlgorithms:        rs.cfg.ProofAlgorithms,
		DPoPRequired:          rs.config.DPoPRequired,
	}
	for _, method := range rs.config.Methods {
		m.PoPMethods = append(m.PoPMethods, popMethods[method])
	}
	serve.JSON(w, http.StatusOK, m)
}
