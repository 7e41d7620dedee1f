// SPDX-License-Identifier: Apache-2.0

// Command wraphttp gives attestation-based client authentication to an
// *http.Client that a program already has: wrap, below, is all there is to it.
//
//	go run ./examples/wraphttp
//	go run ./examples/wraphttp -store /dev/tpmrm0 -keys DIR -issuer URL -client-id ID -attester URL
//
// Without -issuer it runs against reference servers of its own (setup.go).
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/instancekey/instancekey/client"
)

// wrap returns existing with client authentication added. Nothing else of it
// changes: its Timeout, cookie jar and redirect policy are copied, and what sent
// its requests until now, with its proxy, TLS and tracing settings, sends them
// still.
func wrap(c *client.Client, existing *http.Client) *http.Client {
	wrapped := *existing
	wrapped.Transport = c.HTTPClient().Transport
	return &wrapped
}

// example makes the token request of the client credentials grant by hand, to
// show that it is an ordinary request of an ordinary client.
func example(ctx context.Context, cfg client.Config, existing *http.Client) (status string, err error) {
	cfg.Base = existing.Transport // nil is http.DefaultTransport in both
	c, err := client.New(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer c.Close()
	endpoint, err := c.Endpoint(ctx)
	if err != nil {
		return "", err
	}
	// Until now PostForm was refused: invalid_client. Requests to all other
	// places go out as they always did.
	resp, err := wrap(c, existing).PostForm(endpoint.TokenURL, url.Values{
		"grant_type": {"client_credentials"},
		"client_id":  {cfg.ClientID},
	})
	if err != nil {
		return "", fmt.Errorf("token request: %w", err)
	}
	defer resp.Body.Close()
	return resp.Status, nil
}
