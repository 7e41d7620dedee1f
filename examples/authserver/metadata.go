package authserver

import (
	"net/http"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/serve"
)

// metadata is the RFC 8414 document, with the draft's members (section 8).
// client_attestation_pop_methods_supported is not among them: it announces
// attestations as a signal beside another client authentication (section 7.6),
// and this server accepts none beside.
type metadata struct {
	Issuer                   string                    `json:"issuer"`
	TokenEndpoint            string                    `json:"token_endpoint"`
	JWKSURI                  string                    `json:"jwks_uri"`
	ChallengeEndpoint        string                    `json:"challenge_endpoint,omitempty"`
	GrantTypes               []string                  `json:"grant_types_supported"`
	Scopes                   []string                  `json:"scopes_supported,omitempty"`
	TokenEndpointAuthMethods []string                  `json:"token_endpoint_auth_methods_supported"`
	AttestationAlgorithms    []jose.SignatureAlgorithm `json:"client_attestation_signing_alg_values_supported"`
	PoPAlgorithms            []jose.SignatureAlgorithm `json:"client_attestation_pop_signing_alg_values_supported"`
	DPoPAlgorithms           []jose.SignatureAlgorithm `json:"dpop_signing_alg_values_supported"`
}

func (s *Server) newMetadata(base string) metadata {
	m := metadata{
		Issuer:                   s.cfg.Issuer,
		TokenEndpoint:            s.tokenEndpoint,
		JWKSURI:                  base + "/jwks",
		ChallengeEndpoint:        s.challengeEndpoint,
		GrantTypes:               []string{grantClientCredentials},
		TokenEndpointAuthMethods: s.methods,
		AttestationAlgorithms:    s.cfg.AttestationAlgorithms,
		PoPAlgorithms:            s.cfg.ProofAlgorithms,
		DPoPAlgorithms:           s.cfg.ProofAlgorithms,
	}
	if s.cfg.RefreshTokens {
		m.GrantTypes = append(m.GrantTypes, grantRefreshToken)
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
