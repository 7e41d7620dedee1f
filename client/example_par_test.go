// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
)

// A pushed authorization request (RFC 9126) is what golang.org/x/oauth2 would
// have put into the browser's URL, posted to the server by the Client, which
// authenticates it like a token request. The code is then of use to this
// instance alone.
func ExampleClient_Metadata() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    openStore(),
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	server, err := c.Metadata(ctx)
	if err != nil {
		log.Fatal(err)
	}
	endpoint, err := c.Endpoint(ctx)
	if err != nil {
		log.Fatal(err)
	}
	config := oauth2.Config{ClientID: "meter-firmware", Endpoint: endpoint, RedirectURL: "http://127.0.0.1:8080/"}

	verifier := oauth2.GenerateVerifier()
	request, err := url.Parse(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		log.Fatal(err)
	}
	resp, err := c.HTTPClient().PostForm(server.PushedAuthorizationRequestEndpoint, request.Query())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&pushed); err != nil || pushed.RequestURI == "" {
		log.Fatal(resp.Status, err)
	}
	// Send the user there; the code comes back to RedirectURL.
	fmt.Println(endpoint.AuthURL + "?" + url.Values{"client_id": {config.ClientID}, "request_uri": {pushed.RequestURI}}.Encode())

	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTPClient())
	token, err := config.Exchange(ctx, "the code", oauth2.VerifierOption(verifier))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())
	// Output:
	// https://as.example.com/authorize?client_id=meter-firmware&request_uri=urn%3Aexample%3A1
	// Bearer
}
