// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// An application opens its key at start. Any Store will do: with one of package
// tpm instead of softkey the key cannot leave the device.
func ExampleOpenOrCreate() {
	ctx := context.Background()
	store := softkey.New()

	key, err := keystore.OpenOrCreate(ctx, store, "client-instance")
	switch {
	case errors.Is(err, keystore.ErrKeyLost):
		log.Fatal("this device has to be enrolled again: ", err)
	case err != nil:
		log.Fatal(err)
	}

	signature, err := key.Sign(ctx, []byte("header.payload"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes\n", key.Algorithm(), len(signature))
	// Output: ES256, 64 bytes
}

// openToken stands for a PKCS#11, YubiKey or KMS library.
func openToken() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	return key
}

// A key in other hardware becomes a Key if there is a crypto.Signer for it.
func ExampleFromSigner() {
	var signer crypto.Signer = openToken()

	key, err := keystore.FromSigner(signer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Algorithm())
	// Output: ES384
}

// The example key of RFC 9449, section 4.2, and the "jkt" that section 6.1 gives
// for it.
func ExampleThumbprint() {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal([]byte(`{
		"kty": "EC", "crv": "P-256",
		"x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
		"y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"
	}`), &jwk); err != nil {
		log.Fatal(err)
	}

	jkt, err := keystore.Thumbprint(jwk.Key)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(jkt)
	// Output: 0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I
}
