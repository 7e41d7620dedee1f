#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# golang.org/x/oauth2 v0.38.0: if the deadline of the context passes while the token
# response is being read, the error of Token matches neither context.DeadlineExceeded
# nor net.Error: its cause is kept as text (%v). If the deadline passes before the
# response's header has come, the error matches both. So a program that decides by
# errors.Is whether to try again takes the same deadline, met a little later, for a
# lasting failure.
#
# Seen: DeadlineExceeded and a net.Error before the header; neither in the body.
# Fails if that changes.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.24

require golang.org/x/oauth2 v0.38.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// ask returns what an error of a token request matches that is stalled before the
// header of its response, or in its body.
func ask(inBody bool) (deadline, network bool) {
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if inBody {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":`)
			w.(http.Flusher).Flush()
		}
		<-end
	}))
	defer server.Close()
	defer close(end)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := (&clientcredentials.Config{ClientID: "c", ClientSecret: "s", TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}).Token(ctx)
	var n net.Error
	deadline, network = errors.Is(err, context.DeadlineExceeded), errors.As(err, &n)
	fmt.Printf("in the body: %-5t  DeadlineExceeded: %-5t  net.Error: %-5t  %v\n", inBody, deadline, network, err)
	return deadline, network
}

func main() {
	d1, n1 := ask(false)
	d2, n2 := ask(true)
	if !d1 || !n1 || d2 || n2 {
		fmt.Println("this has changed")
		os.Exit(1)
	}
}
GO
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy 2>/dev/null
go list -m golang.org/x/oauth2
go run .
echo "as described"
