// SPDX-License-Identifier: Apache-2.0

package keystore

import (
	"context"

	"github.com/go-jose/go-jose/v4"
)

// SigningKey returns key in the form that jose.NewSigner takes, for the JWSs
// made while ctx lasts: every signature ends with ctx. An Attester with its own
// protocol signs its requests this way.
//
//	signer, err := jose.NewSigner(keystore.SigningKey(ctx, key), nil)
func SigningKey(ctx context.Context, key Key) jose.SigningKey {
	return jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(key.Algorithm()),
		Key:       opaqueSigner{ctx, key},
	}
}

// opaqueSigner holds a context, against the rule, because go-jose's interface
// has no other way to hand it to the key; it lives for one signature.
type opaqueSigner struct {
	ctx context.Context
	key Key
}

func (o opaqueSigner) Public() *jose.JSONWebKey { return &jose.JSONWebKey{Key: o.key.Public()} }

func (o opaqueSigner) Algs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.SignatureAlgorithm(o.key.Algorithm())}
}

func (o opaqueSigner) SignPayload(payload []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	return o.key.Sign(o.ctx, payload)
}
