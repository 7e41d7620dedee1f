// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
)

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// secp256k1 returns a public key on that curve, as KMS libraries have it.
func secp256k1() *ecdsa.PublicKey {
	number := func(digits string) *big.Int {
		n, ok := new(big.Int).SetString(digits, 16)
		if !ok {
			panic(digits)
		}
		return n
	}
	curve := &elliptic.CurveParams{
		Name: "secp256k1", BitSize: 256, B: big.NewInt(7),
		P:  number("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"),
		N:  number("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
		Gx: number("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
		Gy: number("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
	}
	//lint:ignore SA1019 the ways that are not deprecated know no such curve
	return &ecdsa.PublicKey{Curve: curve, X: curve.Gx, Y: curve.Gy}
}

// fixedSigner answers as it is told.
type fixedSigner struct {
	public crypto.PublicKey
	sign   func(message []byte) ([]byte, error)
}

func (s fixedSigner) Public() crypto.PublicKey { return s.public }
func (s fixedSigner) Sign(_ io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.sign(message)
}

func answer(signature []byte) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) { return signature, nil }
}

func fromSigner(t testing.TB, s crypto.Signer) keystore.Key {
	t.Helper()
	key, err := keystore.FromSigner(s)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFromSigner(t *testing.T) {
	_, private25519, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		algorithm string
		signer    crypto.Signer
	}{
		{"ES256", newECDSA(t, elliptic.P256())},
		{"ES384", newECDSA(t, elliptic.P384())},
		{"ES512", newECDSA(t, elliptic.P521())},
		{"EdDSA", private25519},
	} {
		t.Run(tt.algorithm, func(t *testing.T) {
			key := fromSigner(t, tt.signer)
			if key.Algorithm() != tt.algorithm {
				t.Errorf("Algorithm = %q", key.Algorithm())
			}
			keystoretest.RunKey(t, key)
			if !isPrompt(t, key) || isPrompt(t, fromSigner(t, struct{ crypto.Signer }{tt.signer})) {
				t.Error("a key in memory waits for something, or a signer that may be anything does not")
			}
		})
	}
}

// isPrompt is what package transport asks a key.
func isPrompt(t *testing.T, key keystore.Key) bool {
	k, ok := key.(interface{ IsPrompt() bool })
	if !ok {
		t.Fatalf("a %T does not say whether it is prompt", key)
	}
	return k.IsPrompt()
}

// TestSignerPrintsItsThumbprint, by which the key is known elsewhere.
func TestSignerPrintsItsThumbprint(t *testing.T) {
	private := newECDSA(t, elliptic.P256())
	thumbprint, err := keystore.Thumbprint(private.Public())
	if got := fmt.Sprint(fromSigner(t, private)); err != nil || got != "ES256 key "+thumbprint {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFromSignerRefuses(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		signer crypto.Signer
	}{
		{"nil", nil},
		{"RSA", private},
		{"P-224", newECDSA(t, elliptic.P224())},
		{"secp256k1, which has 256 bits too", fixedSigner{public: secp256k1()}},
		{"no public key", fixedSigner{}},
		{"nil ECDSA public key", fixedSigner{public: (*ecdsa.PublicKey)(nil)}},
		{"ECDSA public key without curve", fixedSigner{public: &ecdsa.PublicKey{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, err := keystore.FromSigner(tt.signer)
			if err == nil || key != nil || !strings.HasPrefix(err.Error(), "keystore: ") {
				t.Errorf("FromSigner = %v, %v, want an error of package keystore", key, err)
			}
		})
	}
}

// TestShortSignatures: r and s are padded to the curve's size (RFC 7518,
// section 3.4). One random signature in 128 has a short one.
func TestShortSignatures(t *testing.T) {
	var vectors []struct {
		Name         string
		PublicJWK    jose.JSONWebKey `json:"public_jwk"`
		SigningInput string          `json:"signing_input"`
		DER          []byte
		JOSE         string
	}
	readTestdata(t, "short-signatures.json", &vectors)
	if len(vectors) != 6 {
		t.Fatalf("%d signatures, want 6", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			key := fromSigner(t, fixedSigner{v.PublicJWK.Key, answer(v.DER)})
			signature, err := key.Sign(t.Context(), []byte(v.SigningInput))
			if err != nil {
				t.Fatal(err)
			}
			compact := v.SigningInput + "." + base64.RawURLEncoding.EncodeToString(signature)
			if !strings.HasSuffix(compact, v.JOSE) {
				t.Errorf("Sign = %x", signature)
			}
			jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm())})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := jws.Verify(key.Public()); err != nil {
				t.Errorf("go-jose: %v", err)
			}
		})
	}
}

func TestSignerError(t *testing.T) {
	errToken := errors.New("token removed")
	key := fromSigner(t, fixedSigner{newECDSA(t, elliptic.P256()).Public(), func([]byte) ([]byte, error) { return nil, errToken }})
	if _, err := key.Sign(t.Context(), nil); !errors.Is(err, errToken) || !strings.HasPrefix(err.Error(), "keystore: ") {
		t.Errorf("Sign error = %v, want the signer's, wrapped", err)
	}
}

// TestSignWhileSignerHangs: the context ends the wait for a signer that takes
// none, the next call is not held up, and the caller has its input back.
func TestSignWhileSignerHangs(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	called, release, late := make(chan struct{}), make(chan struct{}), make(chan string)
	hangs := true
	key := fromSigner(t, fixedSigner{public, func(message []byte) ([]byte, error) {
		if hangs {
			hangs = false
			close(called)
			<-release
			late <- string(message)
		}
		return ed25519.Sign(private, message), nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	input := []byte("first")
	go func() {
		_, err := key.Sign(ctx, input)
		result <- err
	}()
	<-called
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Sign = %v, want context.Canceled", err)
	}
	copy(input, "other")
	if _, err := key.Sign(t.Context(), input); err != nil {
		t.Errorf("Sign beside a hanging signer: %v", err)
	}
	close(release)
	if message := <-late; message != "first" {
		t.Errorf("the hanging signer's message became %q", message)
	}
}

// TestSignCancelledBefore: no work is given to the signer.
func TestSignCancelledBefore(t *testing.T) {
	key := fromSigner(t, fixedSigner{newECDSA(t, elliptic.P256()).Public(), func([]byte) ([]byte, error) {
		t.Error("the signer was called")
		return nil, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Sign(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign = %v, want context.Canceled", err)
	}
}
