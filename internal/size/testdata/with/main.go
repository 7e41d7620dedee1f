// SPDX-License-Identifier: Apache-2.0

// Command with is a small device: its key is in a TPM, its attestations are a remote
// attester's and are kept in a folder, and proofs are signed ahead.
package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/tpm"
)

func main() {
	if err := run(context.Background()); err != nil {
		slog.Error("no token", "error", err)
	}
}

func run(ctx context.Context) error {
	store, err := tpm.Open(ctx, tpm.Config{Dir: "/var/lib/device/keys"})
	if err != nil {
		return err
	}
	defer store.Close()
	c, err := client.New(ctx, client.Config{
		Issuer:    "https://as.example.com",
		ClientID:  "device",
		Store:     store,
		Attester:  client.HTTPAttester{URL: "https://attester.example.com"},
		Cache:     client.DirCache("/var/lib/device/attestations"),
		SignAhead: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	token, err := c.Token(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com", nil)
	if err != nil {
		return err
	}
	token.SetAuthHeader(req)
	resp, err := c.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
