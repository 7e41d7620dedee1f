// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// walletConfig is what OpenID4VC High Assurance Interoperability Profile 1.0
// (section 4.4.1) and the European wallets' technical specification 3 ask of a
// client and of its attestations:
//
//   - the claims of OpenID4VCI 1.0, with "iss" in attestation and PoP JWT
//   - the attester's certificate and what is above it in x5c, without the trust anchor
//   - an attestation for one issuer and less than a day, with times that tell no
//     instance from another
//   - wallet_name, wallet_version, wallet_solution_certification_information,
//     client_status and, if there is a page, wallet_link
//   - DPoP with a key of its own beside the PoP JWT: three JWTs in a request
func walletConfig(store keystore.Store, signing keystore.Key, chain []*x509.Certificate, now time.Time) client.Config {
	return client.Config{
		Issuer:   "https://issuer.example.com",
		ClientID: "https://wallet.example.com",
		Store:    store, // KeyName is empty: each issuer sees another key
		Profile:  transport.ProfileOpenID4VCI,
		DPoP:     client.DPoPOwnKey,
		Attester: client.SelfAttester{
			Key:          signing,
			Certificates: chain,
			Issuer:       "https://wallet-provider.example.com",
			Lifetime:     12 * time.Hour,
			Rounding:     time.Hour,
			Claims: map[string]any{
				"wallet_name":    "Example Wallet",
				"wallet_version": "2.1.0",
				"wallet_link":    "https://wallet.example.com/about",
				"wallet_solution_certification_information": "https://wallet.example.com/certificate",
				"client_status": map[string]any{
					"status": map[string]any{"status_list": map[string]any{"idx": 412, "uri": "https://wallet.example.com/status/1"}},
					"exp":    now.Add(24 * time.Hour).Truncate(time.Hour).Unix(),
				},
			},
		},
	}
}

// An instance of a wallet at an issuer that follows HAIP 1.0.
func ExampleSelfAttester_wallet() {
	var (
		store   keystore.Store      // of package tpm
		signing keystore.Key        // the wallet provider's; on a phone an Attester of its own is asked instead
		chain   []*x509.Certificate // of signing
	)
	cfg := walletConfig(store, signing, chain, time.Now())
	fmt.Println(cfg.Profile, cfg.Attester.(client.SelfAttester).Claims["wallet_name"])
	// Output: oid4vci-1 Example Wallet
}
