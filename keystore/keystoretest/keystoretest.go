// SPDX-License-Identifier: Apache-2.0

// Package keystoretest checks that a [keystore.Store] or a [keystore.Key] keeps
// the contract written there. Whoever implements one calls it from a test:
//
//	func TestConformance(t *testing.T) {
//		keystoretest.RunPersistent(t, func(t *testing.T) func(*testing.T) keystore.Store {
//			dir := t.TempDir()
//			return func(t *testing.T) keystore.Store {
//				store, err := mystore.Open(dir)
//				if err != nil {
//					t.Fatal(err)
//				}
//				return store
//			}
//		})
//	}
//
// The number of operations is small, so that hardware can be tested: with its
// subtests, RunPersistent makes about 40 keys and 80 signatures. What needs a
// device in a certain state (a lost key, a lockout, a broken file) is for the
// implementer's own tests.
package keystoretest

import (
	"context"
	"io"
	"testing"

	"github.com/instancekey/instancekey/keystore"
)

// Run checks a Store that keeps its keys in memory only, or whose place cannot
// be opened twice. newStore is called once for each subtest, with that
// subtest's t, and returns a Store that holds no keys. If the Store is an
// [io.Closer], Run closes some of them; closing them again from t.Cleanup must
// do no harm.
func Run(t *testing.T, newStore func(t *testing.T) keystore.Store) {
	run(t, storeChecks, func(t *testing.T) func() keystore.Store {
		return func() keystore.Store { return newStore(t) }
	})
}

// RunPersistent checks what Run does, and that keys survive a restart. newPlace
// is called once for each subtest and prepares an empty place, such as a folder
// or a simulated device. The function that it returns opens a Store there; it
// is called again after the first Store was given up (and closed, if it is an
// [io.Closer]).
func RunPersistent(t *testing.T, newPlace func(t *testing.T) func(t *testing.T) keystore.Store) {
	place := func(t *testing.T) func() keystore.Store {
		open := newPlace(t)
		return func() keystore.Store { return open(t) }
	}
	run(t, storeChecks, place)
	run(t, restartChecks, place)
}

// RunKey checks one Key, for example of an algorithm that Create does not make,
// or of [keystore.FromSigner].
func RunKey(t *testing.T, key keystore.Key) {
	for _, c := range keyChecks {
		t.Run(c.name, func(t *testing.T) { c.run(t, key) })
	}
}

// tb is what the checks use of a *testing.T. The tests of this package hand in
// another one, to see a broken Store found out.
type tb interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

type storeCheck struct {
	name string
	run  func(t tb, open func() keystore.Store)
}

type keyCheck struct {
	name string
	run  func(t tb, key keystore.Key)
}

func run(t *testing.T, checks []storeCheck, newPlace func(t *testing.T) func() keystore.Store) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, newPlace(t)) })
	}
}

// create makes a key or ends the test.
func create(t tb, s keystore.Store, name string) keystore.Key {
	t.Helper()
	key, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatalf("Create(%q): %v", name, err)
	}
	return notNil(t, key)
}

// open opens a key or ends the test.
func open(t tb, s keystore.Store, name string) keystore.Key {
	t.Helper()
	key, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("Open(%q): %v", name, err)
	}
	return notNil(t, key)
}

func notNil(t tb, key keystore.Key) keystore.Key {
	t.Helper()
	if key == nil {
		t.Fatalf("there is neither a key nor an error")
	}
	return key
}

// thumbprint returns the key's RFC 7638 thumbprint or ends the test.
func thumbprint(t tb, key keystore.Key) string {
	t.Helper()
	jkt, err := keystore.Thumbprint(notNil(t, key).Public())
	if err != nil {
		t.Fatalf("Thumbprint(Public()): %v", err)
	}
	return jkt
}

// giveUp closes s if it can be closed.
func giveUp(t tb, s keystore.Store) {
	t.Helper()
	if closer, ok := s.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
