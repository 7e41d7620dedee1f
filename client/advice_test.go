// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestAdvice: where a refusal's cause is known, the error says what to change, in
// words of our own; TestKeycloak shows that Keycloak says such things.
func TestAdvice(t *testing.T) {
	const bad = "invalid_client_attestation"
	for name, test := range map[string]struct{ code, description, want string }{
		"kid":             {bad, "Invalid attester kid: null", "kid"},
		"trust":           {bad, "Cannot load attester keys: attester_trust_idps", "attester_trust_idps"},
		"key":             {bad, "No matching key found for kid: " + secret, "JWK Set"},
		"client":          {bad, "No such client: " + secret, "client_id"},
		"sub":             {bad, "The sub claim (subject) MUST match the client_id parameter", "another client"},
		"iss":             {bad, "The iss (issuer) claim MUST contain a unique identifier for the entity that issued the JWT", "ProfileKeycloak"},
		"cnf":             {bad, "The cnf (confirmation) claim MUST specify a key", "cnf.jwk"},
		"PoP's iss":       {bad, "The value of the iss (issuer) claim, representing the client_id MUST match", "ProfileKeycloak"},
		"aud":             {bad, "The aud (audience) claim MUST specify a value", "hostname"},
		"alg":             {bad, "Key with algorithm null and type EC is incorrect for provider algorithm ES256", "alg"},
		"signature":       {bad, "Invalid token signature", "under its kid"},
		"expired":         {bad, "Token is not active", "clocks"},
		"algorithm":       {bad, "Signature provider not found for algorithm: ES256K", "client_attestation_signing_alg_values_supported"},
		"typ":             {bad, "The JWS type MUST be oauth-client-attestation+jwt instead of wit+jwt", "Deviations"},
		"no client":       {"invalid_client", "Invalid client or Invalid client credentials", "disabled"},
		"authenticator":   {"unauthorized_client", "Invalid client or Invalid client credentials", "attestation-based"},
		"service account": {"unauthorized_client", "Client not enabled to retrieve service account", "serviceAccountsEnabled"},
		"another code":    {"invalid_grant", "Invalid token signature", ""},
		"other words":     {bad, "who are you?", ""},
		"none":            {bad, "", ""},
		"not its begin":   {bad, secret + "Invalid token signature", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.Set(answerWith(400, "application/json", fmt.Sprintf(`{"error":%q,"error_description":%q}`, test.code, test.description)))
			_, err := r.client(t).Token(t.Context())
			advice := client.Advice(err)
			if (advice == "") != (test.want == "") || !strings.Contains(advice, test.want) {
				t.Errorf("advice %q, want one with %q", advice, test.want)
			}
			if !strings.HasSuffix(err.Error(), advice) || !strings.Contains(err.Error(), fmt.Sprintf("%.200q", test.description)) && test.description != "" || len(err.Error()) > 800 {
				t.Errorf("error %q", err)
			}
			var refused *oauth2.RetrieveError
			if !errors.As(err, &refused) || refused.ErrorDescription != test.description {
				t.Errorf("the server's words are lost: %v", refused)
			}
		})
	}
	if client.Advice(nil) != "" || client.Advice(errors.New("Invalid token signature")) != "" {
		t.Error("advice on what is no refusal")
	}
}
