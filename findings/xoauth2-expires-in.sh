#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# golang.org/x/oauth2 v0.38.0 reads expires_in as a JSON number and then as an int64.
# RFC 6749, section 5.1, has an example of it and no type; JSON has one kind of number,
# in which 3600, 3600.0 and 3.6e3 are one value (RFC 8259, section 6). For the last two
# the whole token response is an error, with the access token and, what cannot be had
# again, a rotated refresh token in it. "3600" as text, which some servers write, is
# taken.
#
# Seen: a token for 3600 and "3600"; an error for 3600.0 and 3.6e3. Fails if that changes.
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
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"golang.org/x/oauth2"
)

func main() {
	asDescribed := true
	for _, test := range []struct {
		expiresIn string
		token     bool
	}{{"3600", true}, {`"3600"`, true}, {"3600.0", false}, {"3.6e3", false}} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":"a","token_type":"Bearer","refresh_token":"next","expires_in":%s}`, test.expiresIn)
		}))
		config := oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}}
		token, err := config.TokenSource(context.Background(), &oauth2.Token{RefreshToken: "used"}).Token()
		server.Close()
		fmt.Printf("expires_in %-7s token: %-5t error: %v\n", test.expiresIn, token != nil, err)
		asDescribed = asDescribed && (token != nil) == test.token && (err == nil) == test.token
	}
	if !asDescribed {
		os.Exit(1)
	}
	fmt.Println("as described")
}
GO
export GOFLAGS=-mod=mod GOWORK=off
go mod tidy 2>/dev/null
go list -m golang.org/x/oauth2
go run .
