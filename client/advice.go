// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"strings"

	"golang.org/x/oauth2"
)

// Advice says what to change at the client, the attester or the server, if this package
// knows what a server's refusal means. The error of every refused grant wraps an
// oauth2.RetrieveError, which has the server's own words; err must be such an error. The
// texts of Advice are this package's own and contain nothing that the server has sent. ""
// means that there is no advice.
func Advice(err error) string {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return ""
	}
	for _, known := range keycloakRefusals {
		if refusal.ErrorCode == known.code && strings.HasPrefix(refusal.ErrorDescription, known.says) {
			return known.advice
		}
	}
	return ""
}

const badAttestation = "invalid_client_attestation"

// keycloakRefusals are what Keycloak 26.7 answers: its code, how its
// error_description begins, and what that means.
var keycloakRefusals = []struct{ code, says, advice string }{
	{badAttestation, "Invalid attester kid", "Keycloak finds the attester's key by kid alone: give the attester's key a kid"},
	{badAttestation, "Cannot load attester keys", "the client in Keycloak names no identity provider: set its attribute attester_trust_idps"},
	{badAttestation, "No matching key found for kid", "none of the identity providers in the client's attribute attester_trust_idps is enabled and has the attester's key under this kid and alg: compare the attester's JWK Set with theirs"},
	{badAttestation, "No such client", "the realm has no client of this client_id: see Config.Issuer and Config.ClientID"},
	{badAttestation, "The sub claim (subject) MUST match", "the attestation is for another client than the request: see the attester's client_id and Config.ClientID"},
	{badAttestation, "The iss (issuer) claim MUST contain", "the attestation has no iss: let the attester set one, and use transport.ProfileKeycloak"},
	{badAttestation, "The cnf (confirmation) claim MUST", "the attestation has no cnf.jwk, which is a fault of the attester"},
	{badAttestation, "The value of the iss (issuer) claim", "the PoP JWT has no iss: use transport.ProfileKeycloak"},
	{badAttestation, "The aud (audience) claim MUST", "Keycloak knows itself by another issuer than Config.Issuer: see its option hostname"},
	{badAttestation, "Key with algorithm", "a key has no alg, or another than it signs with: Keycloak wants alg in the attester's JWK Set and in the attestation's cnf.jwk"},
	{badAttestation, "Invalid token signature", "the attester's key is another than the one that Keycloak has under its kid"},
	{badAttestation, "Token is not active", "the attestation has expired by Keycloak's clock: compare the clocks of device, attester and server"},
	{badAttestation, "Signature provider not found", "Keycloak does not verify this algorithm: see client_attestation_signing_alg_values_supported in its metadata"},
	{badAttestation, "The JWS type MUST be", "Keycloak takes attestations of the draft's type alone: leave Config.Deviations empty"},
	{"invalid_client", "Invalid client or Invalid client credentials", "if this is Keycloak, the realm has no client of this client_id, or it is disabled: see Config.Issuer and Config.ClientID"},
	{"unauthorized_client", "Invalid client or Invalid client credentials", "if this is Keycloak, the client's clientAuthenticatorType is not attestation-based, or the feature client-auth-abca is off"},
	{"unauthorized_client", "Client not enabled to retrieve service account", "if this is Keycloak, client credentials need the client's serviceAccountsEnabled"},
}
