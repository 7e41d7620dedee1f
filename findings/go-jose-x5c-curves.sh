#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# go-jose v4.1.9 parses every certificate in a JWS header's x5c with crypto/x509 when it
# parses the JWS, before anybody asks for them and also if the caller never does. Go's
# crypto/x509 knows four NIST curves. So a JWS that is well formed and whose own key and
# signature are ES256 cannot be parsed at all if one certificate further up its chain
# has a Brainpool key (RFC 5639, as European PKIs have), although the specification
# leaves validation of the chain to the recipient (RFC 7515, 4.1.6). The error's text then
# has the whole chain in it.
#
# Seen: the same JWS parses without x5c and with a P-256 chain, and is an error with a
# brainpoolP256r1 CA behind the P-256 leaf. Fails if that changes.
set -euo pipefail

command -v openssl >/dev/null || { apt-get -qq update >/dev/null; apt-get -qq install -y --no-install-recommends openssl >/dev/null; }
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
for curve in prime256v1 brainpoolP256r1; do
	openssl req -x509 -newkey ec -pkeyopt "ec_paramgen_curve:$curve" -nodes -keyout "$curve.key" -subj "/CN=CA $curve" -days 30 -outform DER -out "$curve.ca" 2>/dev/null
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$curve.leafkey" -subj /CN=leaf -days 30 \
		-CA <(openssl x509 -inform DER -in "$curve.ca") -CAkey "$curve.key" -outform DER -out "$curve.leaf" 2>/dev/null
done
cat >go.mod <<'MOD'
module finding

go 1.24

require github.com/go-jose/go-jose/v4 v4.1.9
MOD
cat >main.go <<'GO'
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"

	"github.com/go-jose/go-jose/v4"
)

func main() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	parse := func(name string, chain ...string) error {
		options := new(jose.SignerOptions)
		if len(chain) > 0 {
			var x5c []string
			for _, file := range chain {
				der, err := os.ReadFile(file)
				check(err)
				x5c = append(x5c, base64.StdEncoding.EncodeToString(der))
			}
			options = options.WithHeader("x5c", x5c)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
		check(err)
		signed, err := signer.Sign([]byte("payload"))
		check(err)
		compact, err := signed.CompactSerialize()
		check(err)
		_, err = jose.ParseSigned(compact, []jose.SignatureAlgorithm{jose.ES256})
		fmt.Printf("%s: %.80s\n", name, fmt.Sprint(err))
		return err
	}
	plain := parse("without x5c")
	nist := parse("P-256 leaf, P-256 CA", "prime256v1.leaf", "prime256v1.ca")
	brainpool := parse("P-256 leaf, Brainpool CA", "brainpoolP256r1.leaf", "brainpoolP256r1.ca")
	if plain != nil || nist != nil || brainpool == nil {
		os.Exit(1)
	}
	fmt.Println("as described")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
export GOFLAGS=-mod=mod GOWORK=off
go mod tidy 2>/dev/null
go list -m github.com/go-jose/go-jose/v4
go run .
