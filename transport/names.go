// SPDX-License-Identifier: Apache-2.0

package transport

// Names on the wire (draft-ietf-oauth-attestation-based-client-auth-12,
// sections "Client Attestation JWT", "Client Attestation PoP JWT",
// "Challenges" and "Verification"; RFC 9449 for DPoP).
const (
	HeaderAttestation    = "OAuth-Client-Attestation"
	HeaderAttestationPoP = "OAuth-Client-Attestation-PoP"
	HeaderChallenge      = "OAuth-Client-Attestation-Challenge"
	HeaderDPoP           = "DPoP"
	HeaderDPoPNonce      = "DPoP-Nonce"

	typePoP  = "oauth-client-attestation-pop+jwt"
	typeDPoP = "dpop+jwt"

	codeUseChallenge        = "use_attestation_challenge"
	codeUseFreshAttestation = "use_fresh_attestation"
	codeUseDPoPNonce        = "use_dpop_nonce"
	codeInvalidAttestation  = "invalid_client_attestation"
	codeInvalidClient       = "invalid_client"
)

// A Method is a way to prove possession of the Client Instance Key. Its values
// are those registered for token_endpoint_auth_method (draft, "OAuth Token
// Endpoint Authentication Methods").
type Method string

const (
	// MethodPoP sends a Client Attestation PoP JWT of its own. A DPoP proof may
	// go beside it, with the same or another key. The zero value means this.
	MethodPoP Method = "attest_jwt_client_auth"

	// MethodDPoP sends a DPoP proof by the Client Instance Key, which is PoP
	// and DPoP in one (draft, "DPoP Combined Mode"). Tokens are then bound to
	// the Client Instance Key, and each use of one costs a signature of it.
	MethodDPoP Method = "attest_jwt_client_auth_dpop"
)

// Known reports whether m is one of the constants, or empty.
func (m Method) Known() bool { return m == "" || m == MethodPoP || m == MethodDPoP }

// A Profile is the form of the draft that a server speaks. Forms are not told
// apart by trial: the caller says which it is.
type Profile string

const (
	// ProfileDraft12 is the current draft, -11 and -12. The zero value means
	// this.
	ProfileDraft12 Profile = "draft-12"

	// ProfileDraft10 differs in combined mode, where the challenge is sent as
	// the DPoP proof's nonce.
	ProfileDraft10 Profile = "draft-10"

	// ProfileOpenID4VCI is -07, which OpenID for Verifiable Credential
	// Issuance 1.0 references: the PoP JWT has "iss", and, for verifiers that
	// are older still, "nbf", "exp" and "nonce". Error codes are also looked for in
	// error_description, where some of its servers put them.
	ProfileOpenID4VCI Profile = "oid4vci-1"

	// ProfileKeycloak is what Keycloak's feature client-auth-abca of version 26.7
	// speaks: -07 in the claims that it demands. The PoP JWT has "iss", and a Client
	// checks that attestations have "iss", a "kid" and an "alg" in cnf.jwk. Error
	// codes are looked for as in ProfileOpenID4VCI. examples/interop/keycloak has
	// the recipe.
	ProfileKeycloak Profile = "keycloak"
)

// Known reports whether p is one of the constants, or empty.
func (p Profile) Known() bool {
	switch p {
	case "", ProfileDraft12, ProfileDraft10, ProfileOpenID4VCI, ProfileKeycloak:
		return true
	}
	return false
}

// HasIssuer reports whether attestations and PoP JWTs of this profile have "iss",
// which the draft's -08 removed.
func (p Profile) HasIssuer() bool { return p == ProfileOpenID4VCI || p == ProfileKeycloak }
