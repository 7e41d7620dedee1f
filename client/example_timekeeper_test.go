// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"net/http"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

// A device whose clock may be wrong has one Timekeeper for all that it sends.
func ExampleTimekeeper() {
	start := func(ctx context.Context, store keystore.Store) (*client.Client, error) {
		keeper := client.NewTimekeeper(client.TimekeeperConfig{
			IsSet: client.SystemClockIsSet,
			File:  "/var/lib/meter/time",
		})
		network := keeper.RoundTripper(http.DefaultTransport.(*http.Transport))
		return client.New(ctx, client.Config{
			Issuer:     "https://as.example.com",
			ClientID:   "meter-firmware",
			Store:      store,
			Attester:   client.HTTPAttester{URL: "https://attester.example.com", Client: &http.Client{Transport: network}},
			Base:       network,
			Timekeeper: keeper,
		})
	}
	_ = start
}
