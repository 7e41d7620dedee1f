#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# go-tpm-tools v0.4.11: its Microsoft TPM simulator, as an io.ReadWriter, decrypts an
# encrypted command parameter in the slice that it is given, though an io.Writer "must
# not modify the slice data, even temporarily". Who records the commands of a session
# with parameter encryption and looks at the record afterwards sees a clear text that
# has never been sent, and takes the encryption for missing; and what is sent again
# after a retry is another command.
#
# Seen: after Write of a TPM2_Create with an encrypted inSensitive the slice is another
# one, and has the key's password in it; before, it has not. Fails if that changes.
# Needs a C compiler and OpenSSL's headers.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.25

require (
	github.com/google/go-tpm v0.9.8
	github.com/google/go-tpm-tools v0.4.11
)
MOD
cat >main.go <<'GO'
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"
)

var password = []byte("a password in clear")

// wire hands commands to the simulator and looks at the slice before and after.
type wire struct {
	sim           *simulator.Simulator
	before, after int // how often the password was there
	changed       int
}

func (w *wire) Send(command []byte) ([]byte, error) {
	sent := bytes.Clone(command)
	w.before += bytes.Count(command, password)
	if _, err := w.sim.Write(command); err != nil {
		return nil, err
	}
	w.after += bytes.Count(command, password)
	if !bytes.Equal(sent, command) {
		w.changed++
	}
	answer := make([]byte, 4096)
	n, err := w.sim.Read(answer)
	return answer[:n], err
}

func main() {
	sim, err := simulator.Get()
	if err != nil {
		panic(err)
	}
	defer sim.Close()
	w := &wire{sim: sim}
	primary, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(w)
	if err != nil {
		panic(err)
	}
	public, err := primary.OutPublic.Contents()
	if err != nil {
		panic(err)
	}
	template := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
	}
	_, err = tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: primary.ObjectHandle, Name: primary.Name, Auth: tpm2.PasswordAuth(nil)},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: password},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte("data")}),
		}},
		InPublic: tpm2.New2B(template),
	}.Execute(w, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(primary.ObjectHandle, *public), tpm2.AESEncryption(128, tpm2.EncryptIn)))
	if err != nil {
		panic(err)
	}
	fmt.Printf("slices changed: %d; the password in them: %d before Write, %d after\n", w.changed, w.before, w.after)
	if w.changed == 0 || w.before != 0 || w.after == 0 {
		fmt.Println("this has changed")
		os.Exit(1)
	}
}
GO
export GOTOOLCHAIN=local CGO_ENABLED=1
GOFLAGS=-mod=mod go mod tidy 2>/dev/null
go list -m github.com/google/go-tpm-tools
go run . 2>&1 | grep -v warning
echo "as described"
