// SPDX-License-Identifier: Apache-2.0

package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha512" // ES384, ES512
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// FromSigner makes a Key of a crypto.Signer, such as PKCS#11, YubiKey and cloud
// KMS libraries give. ECDSA keys on P-256, P-384 and P-521 sign ES256, ES384
// and ES512; Ed25519 keys sign EdDSA. Other keys are refused.
//
// A crypto.Signer takes no context. Sign therefore waits for the signer in
// another goroutine and returns when its context ends; the signer finishes in
// the background and its result is dropped. The private keys of crypto/ecdsa and
// crypto/ed25519 wait for nothing, and sign in the caller's goroutine. The signer must
// be safe for concurrent use. Its own errors are returned wrapped, with no sentinel
// added.
//
// The Key prints, logs and marshals as its algorithm and thumbprint, whatever
// the signer itself would show.
func FromSigner(s crypto.Signer) (Key, error) {
	if s == nil {
		return nil, errors.New("keystore: nil crypto.Signer")
	}
	key := &signerKey{sign: s.Sign, public: s.Public()}
	switch s.(type) {
	case *ecdsa.PrivateKey, ed25519.PrivateKey:
		key.isPrompt = true
	}
	switch pub := key.public.(type) {
	case *ecdsa.PublicKey:
		if pub == nil {
			return nil, errors.New("keystore: the crypto.Signer has no public key")
		}
		// By curve and not by size: secp256k1 and brainpool keys have 256 bits
		// too, and are not for ES256.
		switch pub.Curve {
		case elliptic.P256():
			key.algorithm, key.hash = "ES256", crypto.SHA256
		case elliptic.P384():
			key.algorithm, key.hash = "ES384", crypto.SHA384
		case elliptic.P521():
			key.algorithm, key.hash = "ES512", crypto.SHA512
		default:
			return nil, errors.New("keystore: no JWS algorithm for an ECDSA key on this curve: use P-256, P-384 or P-521")
		}
		key.order = pub.Curve.Params().N
	case ed25519.PublicKey:
		key.algorithm = "EdDSA"
	default:
		return nil, fmt.Errorf("keystore: a %T cannot be a client instance key: use ECDSA or Ed25519", pub)
	}
	return key, nil
}

type signerKey struct {
	// sign is the signer's method and not the signer: fmt, slog and json see
	// through any number of structs, but not into a function.
	sign      func(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error)
	isPrompt  bool // sign waits for nothing
	public    crypto.PublicKey
	algorithm string
	hash      crypto.Hash // 0: the signer takes the message itself (Ed25519)
	order     *big.Int    // of the curve; nil for Ed25519
}

func (k *signerKey) Algorithm() string        { return k.algorithm }
func (k *signerKey) Public() crypto.PublicKey { return k.public }

// IsPrompt reports whether Sign waits for nothing. Package transport then lets several
// goroutines sign at once.
func (k *signerKey) IsPrompt() bool { return k.isPrompt }

func (k *signerKey) String() string {
	thumbprint, err := Thumbprint(k.public)
	if err != nil {
		return k.algorithm + " key"
	}
	return k.algorithm + " key " + thumbprint
}

func (k *signerKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *signerKey) Sign(ctx context.Context, signingInput []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("keystore: sign: %w", err)
	}
	var message []byte // the caller may reuse its slice once we have returned
	if k.hash == 0 {
		message = bytes.Clone(signingInput)
	} else {
		h := k.hash.New()
		h.Write(signingInput)
		message = h.Sum(nil)
	}
	signature, err := k.signWithin(ctx, message)
	switch {
	case err != nil:
		return nil, fmt.Errorf("keystore: sign: %w", err)
	case k.order != nil:
		return joseECDSA(signature, k.order)
	case len(signature) != ed25519.SignatureSize:
		return nil, errors.New("keystore: sign: the signer's answer is not an Ed25519 signature")
	}
	return signature, nil
}

// signWithin waits for the signer no longer than ctx lasts.
func (k *signerKey) signWithin(ctx context.Context, message []byte) ([]byte, error) {
	if k.isPrompt {
		return k.sign(rand.Reader, message, k.hash)
	}
	type result struct {
		signature []byte
		err       error
	}
	done := make(chan result, 1)
	go func() {
		signature, err := k.sign(rand.Reader, message, k.hash)
		done <- result{signature, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.signature, r.err
	}
}

// derLength returns how long the DER encoding of a signature is, in bytes.
func derLength(r, s *big.Int) int {
	const tagAndLength = 2
	integer := func(n *big.Int) int { return tagAndLength + n.BitLen()/8 + 1 } // one bit is the sign's
	content := integer(r) + integer(s)
	if content > 127 {
		return tagAndLength + 1 + content
	}
	return tagAndLength + content
}

// joseECDSA turns an ASN.1 DER ECDSA signature into r‖s of fixed length.
func joseECDSA(der []byte, order *big.Int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	// Unmarshal overlooks what follows s, in the sequence and after it: the length tells.
	if _, err := asn1.Unmarshal(der, &sig); err != nil || len(der) != derLength(sig.R, sig.S) {
		return nil, errors.New("keystore: sign: the signer's answer is not an ASN.1 ECDSA signature")
	}
	for _, n := range []*big.Int{sig.R, sig.S} {
		// FillBytes panics on what does not fit, and a signer is hardware we
		// do not know.
		if n.Sign() <= 0 || n.Cmp(order) >= 0 {
			return nil, errors.New("keystore: sign: the signer's answer has a value outside the curve's range")
		}
	}
	coordinate := (order.BitLen() + 7) / 8
	out := make([]byte, 2*coordinate)
	sig.R.FillBytes(out[:coordinate])
	sig.S.FillBytes(out[coordinate:])
	return out, nil
}
