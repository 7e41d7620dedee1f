#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# go-attestation 0.6.4, built with Go 1.23 or later, cannot say whether Secure Boot was
# on from the boot log of a Lenovo workstation: ParseSecurebootState parses every
# certificate in PK, KEK and db, Lenovo's own platform key has a negative serial
# number, and crypto/x509 has refused these since Go 1.23. Who let something pass is in
# other events, and does not depend on that certificate. The log is public: it is among
# the test data of go-tpm-tools 0.4.11.
# An attester that fails closed takes such a machine for one without Secure Boot; one
# that sets GODEBUG=x509negativeserial=1 changes what all its TLS accepts.
#
# Seen: "failed parsing platform keys: x509: negative serial number"; with the GODEBUG
# setting, no error. Fails if that changes.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod init finding 2>/dev/null
go get github.com/google/go-attestation@v0.6.4 2>/dev/null
log=$(go mod download -json github.com/google/go-tpm-tools@v0.4.11 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/internal/test/eventlogs/glinux-alex.bin
cat >main.go <<'GO'
package main

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/google/go-attestation/attest"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	log, err := attest.ParseEventLog(text)
	if err != nil {
		panic(err)
	}
	pcr7 := make([]byte, sha256.Size) // what the log adds up to
	for _, event := range log.Events(attest.HashSHA256) {
		if event.Index == 7 {
			next := sha256.Sum256(append(pcr7, event.Digest...))
			pcr7 = next[:]
		}
	}
	events, err := log.Verify([]attest.PCR{{Index: 7, Digest: pcr7, DigestAlg: crypto.SHA256}})
	if err != nil {
		panic(err)
	}
	_, err = attest.ParseSecurebootState(events)
	fmt.Printf("%d events of PCR 7 verified; ParseSecurebootState: %v\n", len(events), err)
}
GO
go version
go build -o try .
without=$(./try "$log")
with=$(GODEBUG=x509negativeserial=1 ./try "$log")
printf '%s\n%s (GODEBUG=x509negativeserial=1)\n' "$without" "$with"
case $without in *'x509: negative serial number') ;; *) exit 1 ;; esac
case $with in *'ParseSecurebootState: <nil>') ;; *) exit 1 ;; esac
echo 'as described'
