// SPDX-License-Identifier: Apache-2.0

// Package softkey keeps client instance keys in software: in the memory of the
// process ([New]) or in PEM files ([OpenDir]).
//
// Use it for tests and for development. Use it on machines without a TPM or other key
// hardware only if their operator has accepted this:
//
//   - Whoever can read the process's memory, the files, a core dump or a backup
//     of the disk has the key, and can be the client instance from anywhere.
//     Nobody will notice.
//   - Deleting a key removes its file. It does not wipe the disk.
//   - A Client Attester cannot tell such a key from one that was copied, so it
//     can attest no more than what it is told.
//
// Do not use it on a device that has a TPM, and never as a fallback when the
// TPM fails: package tpm keeps keys that cannot leave the device. For keys in a
// smart card, an HSM or a KMS see [keystore.FromSigner].
package softkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"

	"github.com/instancekey/instancekey/keystore"
)

// A Store is a [keystore.Store] over software keys, made by New or OpenDir. It
// is safe for concurrent use and needs no closing.
type Store struct{ backend backend }

// backend is where the keys of a Store are. Names have been checked.
type backend interface {
	create(name string, signer crypto.Signer) error
	open(name string) (keystore.Key, error)
	delete(name string) error
	list() ([]string, error) // ascending
	fmt.Stringer
}

var _ keystore.Store = (*Store)(nil)

// New returns an empty Store in memory: its keys are gone when the process
// ends, and so is all that was issued to them.
func New() *Store { return &Store{newMemory()} }

// KeyOptions says what key CreateKey makes.
type KeyOptions struct {
	// Algorithm is the JWS algorithm: "ES256", "ES384" or "EdDSA" (Ed25519).
	// "" is "ES256".
	Algorithm string
}

// Create makes an ES256 key. See [keystore.Store].
func (s *Store) Create(ctx context.Context, name string) (keystore.Key, error) {
	return s.CreateKey(ctx, name, KeyOptions{})
}

// CreateKey makes a key of the kind that o describes, with the errors of
// Create. An algorithm that is not listed in KeyOptions is an error, and
// nothing is made.
func (s *Store) CreateKey(ctx context.Context, name string, o KeyOptions) (keystore.Key, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	signer, err := generate(o.Algorithm)
	if err != nil {
		return nil, err
	}
	if err := s.backend.create(name, signer); err != nil {
		return nil, err
	}
	return keystore.FromSigner(signer)
}

// Open finds a key. See [keystore.Store]. ErrKeyLost is not among its errors:
// a software key that is there can be used.
func (s *Store) Open(ctx context.Context, name string) (keystore.Key, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return s.backend.open(name)
}

// Delete removes a key. See [keystore.Store]. A [keystore.Key] that was opened
// before still signs.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	return s.backend.delete(name)
}

// List returns the names of all keys. See [keystore.Store].
func (s *Store) List(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("softkey: %w", err)
	}
	return s.backend.list()
}

// String says where the Store keeps its keys, and nothing about them.
func (s *Store) String() string { return "softkey.Store in " + s.backend.String() }

// GoString returns what String returns, so that %#v shows no keys.
func (s *Store) GoString() string { return s.String() }

// MarshalText returns what String returns, for JSON and logs.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("softkey: %w", err)
	}
	return keystore.CheckName(name)
}

func generate(algorithm string) (signer crypto.Signer, err error) {
	switch algorithm {
	case "", "ES256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no key for algorithm %.40q: use ES256, ES384 or EdDSA", algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("softkey: %w", err)
	}
	return signer, nil
}
