// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	"github.com/instancekey/instancekey/client"
)

// What an operator needs to register this client, with the attester's
// algorithm filled in.
func ExampleClient_Registration() {
	c, err := client.New(context.Background(), client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    openStore(),
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
		DPoP:     client.DPoPOwnKey,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	registration := c.Registration()
	registration.AttestationSigningAlgs = []string{"ES256"}
	document, err := json.MarshalIndent(registration, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(document))
	// Output:
	// {
	//   "token_endpoint_auth_method": "attest_jwt_client_auth",
	//   "client_attestation_signing_alg_values_supported": [
	//     "ES256"
	//   ],
	//   "client_attestation_pop_signing_alg_values_supported": [
	//     "ES256"
	//   ],
	//   "client_attestation_pop_methods_supported": [
	//     "attestation_pop_jwt"
	//   ],
	//   "dpop_bound_access_tokens": true
	// }
}
