// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// A JWS under a client instance key, made and verified by go-jose.
func ExampleSigningKey() {
	ctx := context.Background()
	key, err := keystore.OpenOrCreate(ctx, softkey.New(), "client-instance")
	if err != nil {
		log.Fatal(err)
	}

	signer, err := jose.NewSigner(keystore.SigningKey(ctx, key), nil)
	if err != nil {
		log.Fatal(err)
	}
	jws, err := signer.Sign([]byte("hello"))
	if err != nil {
		log.Fatal(err)
	}

	payload, err := jws.Verify(key.Public())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", payload)
	// Output: hello
}

func TestSigningKey(t *testing.T) {
	for _, algorithm := range []string{"ES256", "ES384", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			key, err := softkey.New().CreateKey(t.Context(), "key", softkey.KeyOptions{Algorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			// With the public key in the header, as DPoP proofs have it.
			signer, err := jose.NewSigner(keystore.SigningKey(ctx, key), &jose.SignerOptions{EmbedJWK: true})
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signer.Sign([]byte("payload"))
			if err != nil {
				t.Fatal(err)
			}
			compact, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parsed.Verify(key.Public()); err != nil {
				t.Error(err)
			}
			embedded, err := keystore.Thumbprint(parsed.Signatures[0].Protected.JSONWebKey.Key)
			if want, _ := keystore.Thumbprint(key.Public()); err != nil || embedded != want {
				t.Errorf("embedded key %q, %v, want %q", embedded, err, want)
			}

			cancel()
			if _, err := signer.Sign([]byte("payload")); !errors.Is(err, context.Canceled) {
				t.Errorf("Sign after its context = %v, want context.Canceled", err)
			}
		})
	}
}
