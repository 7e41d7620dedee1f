// SPDX-License-Identifier: Apache-2.0

// Command without does what any program does that calls a server: it sends a request over
// TLS, reads JSON and logs.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
)

func main() {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://as.example.com", nil)
	if err != nil {
		slog.Error("no request", "error", err)
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		slog.Error("no response", "error", err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		slog.Error("no body", "error", err)
		return
	}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &token); err != nil {
		slog.Error("no token", "error", err)
		return
	}
	println(token.AccessToken)
}
