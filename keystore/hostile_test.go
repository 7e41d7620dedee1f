// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
)

func der(t testing.TB, r, s *big.Int) []byte {
	t.Helper()
	octets, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

func TestSmallestAndLargestSignature(t *testing.T) {
	order := elliptic.P256().Params().N
	largest := new(big.Int).Sub(order, big.NewInt(1))
	key := fromSigner(t, fixedSigner{newECDSA(t, elliptic.P256()).Public(), answer(der(t, big.NewInt(1), largest))})
	signature, err := key.Sign(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := append(append(make([]byte, 31), 1), largest.Bytes()...)
	if !bytes.Equal(signature, want) {
		t.Errorf("Sign = %x, want %x", signature, want)
	}
}

// TestSignaturesOfEachLength: DER counts the length of what is long in another form.
func TestSignaturesOfEachLength(t *testing.T) {
	public := newECDSA(t, elliptic.P521()).Public()
	for bits := uint(1); bits <= 520; bits++ {
		r, s := new(big.Int).Lsh(big.NewInt(1), bits), new(big.Int).Lsh(big.NewInt(1), 519)
		signature, err := fromSigner(t, fixedSigner{public, answer(der(t, r, s))}).Sign(t.Context(), nil)
		if err != nil || new(big.Int).SetBytes(signature[:66]).Cmp(r) != 0 || new(big.Int).SetBytes(signature[66:]).Cmp(s) != 0 {
			t.Fatalf("r of %d bits: %x, %v", bits+1, signature, err)
		}
	}
}

// TestHostileSigner: what a signer answers is not believed.
func TestHostileSigner(t *testing.T) {
	p256, p521 := newECDSA(t, elliptic.P256()).Public(), newECDSA(t, elliptic.P521()).Public()
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	one, order := big.NewInt(1), elliptic.P256().Params().N
	good := der(t, one, one)
	for _, tt := range []struct {
		name      string
		public    crypto.PublicKey
		signature []byte
	}{
		{"nothing", p256, nil},
		{"garbage", p256, []byte("garbage")},
		{"zeros", p256, make([]byte, 64)},
		{"already r‖s", p256, bytes.Repeat([]byte{1}, 64)},
		{"DER and more", p256, append(bytes.Clone(good), 0)},
		{"three numbers", p256, []byte{0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1}},
		{"torn DER", p256, good[:len(good)-1]},
		{"only r", p256, []byte{0x30, 3, 2, 1, 1}},
		{"enormous length", p256, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}},
		{"strings for numbers", p256, []byte{0x30, 6, 4, 1, 1, 4, 1, 1}},
		{"r is 0", p256, der(t, new(big.Int), one)},
		{"s is 0", p256, der(t, one, new(big.Int))},
		{"r is negative", p256, der(t, big.NewInt(-1), one)},
		{"s is negative", p256, der(t, one, big.NewInt(-1))},
		{"r is the order", p256, der(t, order, one)},
		{"s is the order", p256, der(t, one, order)},
		{"r is too long", p256, der(t, new(big.Int).Lsh(one, 256), one)},
		{"s is too long by far", p256, der(t, one, new(big.Int).Lsh(one, 100000))},
		{"r of P-521 fills its bytes", p521, der(t, new(big.Int).Lsh(one, 527), one)},
		{"Ed25519: nothing", ed, nil},
		{"Ed25519: short", ed, make([]byte, 63)},
		{"Ed25519: long", ed, make([]byte, 65)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			signature, err := fromSigner(t, fixedSigner{tt.public, answer(tt.signature)}).Sign(t.Context(), []byte("input"))
			if err == nil || signature != nil || !strings.HasPrefix(err.Error(), "keystore: sign: ") {
				t.Errorf("Sign = %x, %v, want an error of package keystore", signature, err)
			}
		})
	}
}

// FuzzSignerAnswer: no answer of a signer makes Sign panic, and every signature
// that it returns is the answer's numbers at full length.
func FuzzSignerAnswer(f *testing.F) {
	one, order := big.NewInt(1), elliptic.P256().Params().N
	f.Add([]byte(nil))
	f.Add([]byte("garbage"))
	f.Add(der(f, one, one))
	f.Add(der(f, new(big.Int).Sub(order, one), one))
	f.Add(der(f, order, one))
	f.Add(der(f, new(big.Int), one))
	f.Add(der(f, big.NewInt(-1), one))
	f.Add(der(f, one, new(big.Int).Lsh(one, 1000)))
	f.Add([]byte{0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	public := newECDSA(f, elliptic.P256()).Public()
	f.Fuzz(func(t *testing.T, octets []byte) {
		signature, err := fromSigner(t, fixedSigner{public, answer(octets)}).Sign(t.Context(), nil)
		if err != nil {
			return
		}
		if len(signature) != 64 {
			t.Fatalf("signature of %d bytes", len(signature))
		}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		if again := der(t, r, s); !bytes.Equal(again, octets) {
			t.Errorf("%x became %x", octets, again)
		}
	})
}
