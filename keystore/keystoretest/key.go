// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
)

var keyChecks = []keyCheck{
	{"Algorithm", checkAlgorithm},
	{"Sign", checkSign},
	{"SignKeepsInput", checkSignKeepsInput},
	{"SignCancelled", checkSignCancelled},
	{"SignAtOnce", checkSignAtOnce},
	{"ShowsNoSecret", checkKeyShowsNoSecret},
}

// signatureSizes are those of RFC 7518, section 3.4, and RFC 8037, section 3.1.
// Other algorithms are verified without a check of the size.
var signatureSizes = map[string]int{"ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64}

func checkAlgorithm(t tb, key keystore.Key) {
	want := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}[key.Algorithm()]
	var got string
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		got = pub.Curve.Params().Name
	case ed25519.PublicKey:
		got = "Ed25519"
	default: // RSA and what is to come: go-jose must know it
	}
	if got != want {
		t.Errorf("Algorithm is %q, which goes with %q, but Public is a %T (%q)", key.Algorithm(), want, key.Public(), got)
	}
	algorithm, jkt := key.Algorithm(), thumbprint(t, key)
	if key.Algorithm() != algorithm || thumbprint(t, key) != jkt {
		t.Errorf("Algorithm or Public changes from call to call")
	}
}

func checkSign(t tb, key keystore.Key) {
	payloads := []string{"", "a", strings.Repeat("\x00\xff", 5000)}
	for _, payload := range payloads {
		if err := verify(key, sign(t, key, payload)); err != nil {
			t.Errorf("a payload of %d bytes: %v", len(payload), err)
		}
	}
}

func checkSignKeepsInput(t tb, key keystore.Key) {
	input := []byte("input")
	first, err := key.Sign(t.Context(), input)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	if string(input) != "input" {
		t.Errorf("Sign changed its input to %q", input)
	}
	kept := slices.Clone(first)
	sign(t, key, "another input")
	if !bytes.Equal(first, kept) {
		t.Errorf("a later Sign changed the signature that an earlier one had returned")
	}
}

func checkSignCancelled(t tb, key keystore.Key) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := key.Sign(cancelled, []byte("input")); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign with a cancelled context = %v, want an error that matches context.Canceled", err)
	}
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if _, err := key.Sign(expired, []byte("input")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sign after its deadline = %v, want an error that matches context.DeadlineExceeded", err)
	}
	if err := verify(key, sign(t, key, "afterwards")); err != nil {
		t.Errorf("Sign after a cancelled one: %v", err)
	}
}

// checkSignAtOnce makes enough signatures to meet, in four runs out of ten, one
// whose r or s begins with a zero byte.
func checkSignAtOnce(t tb, key keystore.Key) {
	const each = 8
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for caller := range callersAtOnce {
		wg.Go(func() {
			for i := range each {
				input := signingInput(key, fmt.Sprintf("caller %d, number %d", caller, i))
				signature, err := key.Sign(t.Context(), []byte(input))
				if err != nil {
					t.Errorf("Sign, %d callers at once: %v", callersAtOnce, err)
				} else if err := verify(key, signed{input, signature}); err != nil {
					t.Errorf("Sign, %d callers at once: %v", callersAtOnce, err)
				}
				// Somebody else's cancelled call is nobody's business.
				_, _ = key.Sign(cancelled, []byte(input))
			}
		})
	}
	wg.Wait()
}

// signed is a JWS signing input and the signature over it.
type signed struct {
	input     string
	signature []byte
}

// signingInput returns a JWS signing input (RFC 7515, section 5.1) with this
// payload, which is all that a Key is ever asked to sign.
func signingInput(key keystore.Key, payload string) string {
	header := fmt.Sprintf(`{"alg":%q}`, key.Algorithm())
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
}

// sign signs or ends the test.
func sign(t tb, key keystore.Key, payload string) signed {
	t.Helper()
	input := signingInput(key, payload)
	signature, err := key.Sign(t.Context(), []byte(input))
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return signed{input, signature}
}

// verify has go-jose verify a signature under key's public key.
func verify(key keystore.Key, s signed) error {
	if want, ok := signatureSizes[key.Algorithm()]; ok && len(s.signature) != want {
		return fmt.Errorf("the %s signature has %d bytes, want %d", key.Algorithm(), len(s.signature), want)
	}
	compact := s.input + "." + base64.RawURLEncoding.EncodeToString(s.signature)
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm())})
	if err != nil {
		return err
	}
	_, err = jws.Verify(key.Public())
	return err
}
