// SPDX-License-Identifier: Apache-2.0

package keystoretest_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/softkey"
)

// newPlace is a place that passes: in memory, where nothing waits for a disk,
// and a restart finds what was there.
func newPlace() func() keystore.Store {
	s := softkey.New()
	return func() keystore.Store { return s }
}

// counted counts what the suite costs.
type counted struct {
	keystore.Store
	created, signed *atomic.Int64
}

func (s counted) Create(ctx context.Context, name string) (keystore.Key, error) {
	key, err := s.Store.Create(ctx, name)
	if err == nil {
		s.created.Add(1)
		key = countedKey{key, s.signed}
	}
	return key, err
}

func (s counted) Open(ctx context.Context, name string) (keystore.Key, error) {
	key, err := s.Store.Open(ctx, name)
	if err == nil {
		key = countedKey{key, s.signed}
	}
	return key, err
}

type countedKey struct {
	keystore.Key
	signed *atomic.Int64
}

func (k countedKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	signature, err := k.Key.Sign(ctx, input)
	if err == nil {
		k.signed.Add(1)
	}
	return signature, err
}

func TestGoodStorePasses(t *testing.T) {
	var created, signed atomic.Int64
	found, checks := keystoretest.Findings(func() func() keystore.Store {
		open := newPlace()
		return func() keystore.Store { return counted{open(), &created, &signed} }
	})
	for check, findings := range found {
		t.Errorf("%s: %q", check, findings)
	}
	if checks != 18 {
		t.Errorf("%d checks ran, want 18", checks)
	}
	// The package comment promises these.
	if created.Load() > 40 || signed.Load() > 80 {
		t.Errorf("%d keys and %d signatures, want at most 40 and 80", created.Load(), signed.Load())
	}
}

// TestRun: what is exported runs all the checks.
func TestRun(t *testing.T) {
	places, opened := 0, 0
	t.Run("persistent", func(t *testing.T) {
		keystoretest.RunPersistent(t, func(*testing.T) func(*testing.T) keystore.Store {
			places++
			open := newPlace()
			return func(*testing.T) keystore.Store {
				opened++
				return open()
			}
		})
	})
	if places != 18 || opened != 19 {
		t.Errorf("RunPersistent made %d places and opened %d Stores, want 18 and 19", places, opened)
	}
	stores := 0
	t.Run("memory", func(t *testing.T) {
		keystoretest.Run(t, func(*testing.T) keystore.Store {
			stores++
			return softkey.New()
		})
	})
	if stores != 17 {
		t.Errorf("Run made %d Stores, want 17", stores)
	}
	key, err := softkey.New().Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	var signed atomic.Int64
	t.Run("key", func(t *testing.T) { keystoretest.RunKey(t, countedKey{key, &signed}) })
	if signed.Load() != 3+2+1+64 {
		t.Errorf("RunKey made %d signatures, want 70", signed.Load())
	}
}

// TestBrokenStoresFail holds the suite against Stores with a fault.
func TestBrokenStoresFail(t *testing.T) {
	detected := 0
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			found, _ := keystoretest.Findings(func() func() keystore.Store {
				open := newPlace()
				var opened int
				return func() keystore.Store {
					opened++
					return b.breakStore(open(), opened)
				}
			})
			if len(found[b.check]) == 0 {
				t.Fatalf("not found by the check %s; found: %q", b.check, found)
			}
			detected++
			t.Logf("%q", found)
		})
	}
	if want := 44; detected != want {
		t.Errorf("%d breakages detected, want %d", detected, want)
	}
}

func TestHoldsPrivateKey(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := p256.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	point, err := p256.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	pub25519, priv25519, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(scalar)
	for _, tt := range []struct {
		name string
		text string
		pub  crypto.PublicKey
		want bool
	}{
		{"empty", "", p256.Public(), false},
		{"hexadecimal", fmt.Sprintf("d=%x!", scalar), p256.Public(), true},
		{"HEXADECIMAL", fmt.Sprintf("d=%X!", scalar), p256.Public(), true},
		{"JWK", fmt.Sprintf(`"d":"%s"`, b64(scalar)), p256.Public(), true},
		{"bytes", fmt.Sprint(scalar), p256.Public(), true},
		{"Go bytes", fmt.Sprintf("%#v", scalar), p256.Public(), true},
		{"struct", fmt.Sprintf("%+v", p256), p256.Public(), true},
		{"DER", fmt.Sprintf("%x", der), p256.Public(), true},
		{"PEM", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), p256.Public(), true},
		{"Ed25519 bytes", fmt.Sprintf("%v", priv25519), pub25519, true},
		{"Ed25519 struct", fmt.Sprintf("%+v", struct{ K crypto.Signer }{priv25519}), pub25519, true},
		{"public key", fmt.Sprintf("%x %v %+v %s", point, point, p256.Public(), b64(point)), p256.Public(), false},
		{"Ed25519 public key", fmt.Sprintf("%x %v %s", []byte(pub25519), pub25519, b64(pub25519)), pub25519, false},
		{"digest", fmt.Sprintf("%x", digest), p256.Public(), false},
		{"another key", fmt.Sprintf("%x", priv25519.Seed()), p256.Public(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := keystoretest.HoldsPrivateKey(tt.text, tt.pub); got != tt.want {
				t.Errorf("HoldsPrivateKey = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestCheck: what Check finds, it names; a Store that cannot be made fails each check, and
// a context that has ended fails what takes one.
func TestCheck(t *testing.T) {
	broken := errors.New("no such device")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx      context.Context
		newStore func() (keystore.Store, error)
		want     string
	}{
		"good":            {t.Context(), func() (keystore.Store, error) { return softkey.New(), nil }, ""},
		"forgetful":       {t.Context(), func() (keystore.Store, error) { return forgetful{softkey.New()}, nil }, "CreateExisting: "},
		"no Store at all": {t.Context(), func() (keystore.Store, error) { return nil, broken }, "Close: new Store: no such device"},
		"ended":           {ended, func() (keystore.Store, error) { return softkey.New(), nil }, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			err := keystoretest.Check(test.ctx, test.newStore)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
