// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"net/http"
	"net/url"

	"github.com/instancekey/instancekey/internal/examplet"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A server that takes each challenge once gives the next one with each answer. The
// transport has to use that, and fetch none after the first.
func Example() {
	t := examplet.New() // in a test: func TestSingleUse(t *testing.T)
	defer t.End()

	server := transporttest.New(t, transporttest.Config{
		Policy: transporttest.Policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoRandomRefusals: true},
		Seed:   1, // else it is drawn, and logged
	})
	key, err := softkey.New().Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	rt, err := transport.New(transport.Config{
		Key:          key,
		Attestations: server.Attester.Source(key),
		Servers:      []transport.Server{server.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	client := &http.Client{Transport: rt}
	for range 3 {
		resp, err := client.PostForm(server.Endpoint(transporttest.Token), url.Values{"grant_type": {"client_credentials"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	for _, r := range server.Requests() {
		t.Logf("%s %d %s", r.Endpoint, r.Status, r.Reason)
	}

	// Output:
	// challenge 200
	// token 200
	// token 200
	// token 200
}
