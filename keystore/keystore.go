// SPDX-License-Identifier: Apache-2.0

// Package keystore is the contract between a Client Instance Key and whatever
// holds it: a TPM, a file, a PKCS#11 token, a cloud KMS.
//
// In OAuth 2.0 Attestation-Based Client Authentication a client instance is
// known by one asymmetric key. The rest of this module needs three things of
// such a key, and [Key] is those three: which JWS algorithm it signs with, its
// public half, and a signature. A [Store] creates keys by name and finds them
// again after a restart.
//
// # Which implementation
//
//   - Package tpm keeps keys in a TPM 2.0: they cannot leave the device.
//   - Package softkey keeps them in memory or in files: for tests, and for
//     machines whose operator has accepted that.
//   - [FromSigner] makes a Key of any [crypto.Signer], for keys that live in a
//     smart card, an HSM or a KMS.
//
// Whoever writes another Store runs the suite in package keystoretest on it.
//
// # Errors
//
// Every error of a Key or a Store that a caller may want to act on matches one of the
// sentinels of this package with [errors.Is], and the cause (a TPM response code, an
// [fs.PathError]) as well. The important distinction is between [ErrNotFound] and
// [ErrKeyLost]. After ErrNotFound there is no key of that name, and it is safe to create
// one. After ErrKeyLost there is a key, and this device can no longer use it. Refresh
// tokens and attestations bound to the key are lost, and only the application can decide
// to enrol again.
//
// No text that a Key or a Store gives, be it an error, formatted, logged or
// marshalled, holds private key material.
package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
)

// A Key signs with one private key that it does not reveal.
//
// Keys are safe for concurrent use. Public and Algorithm answer at once and
// never change during the life of a Key.
type Key interface {
	// Algorithm returns the JWS algorithm of the key's signatures: "ES256",
	// "ES384", or another registered asymmetric one (RFC 7518, section 3.1;
	// RFC 8037 for "EdDSA").
	Algorithm() string

	// Public returns the public key: an *ecdsa.PublicKey for the ES
	// algorithms. The caller must not modify it.
	Public() crypto.PublicKey

	// Sign returns the JWS signature value over signingInput, hashing
	// included: for ES256 the 64 bytes r‖s, for ES384 the 96 bytes r‖s, each
	// half padded to its full length (RFC 7518, section 3.4), never ASN.1 DER.
	//
	// Sign may take long: hardware signs in 200 ms or more, and may be busy with other
	// callers. Soon after ctx ends Sign returns an error that matches ctx.Err(). Other
	// errors match one of this package's sentinels if one fits: ErrKeyLost, ErrAuth,
	// ErrLockedOut, ErrPolicy, ErrUnavailable, ErrClosed.
	Sign(ctx context.Context, signingInput []byte) ([]byte, error)
}

// A Store creates keys and finds them again by name.
//
// A Store checks a name with [CheckName] before it does anything else. Stores are safe
// for concurrent use. Every Store over the same device and folder can open the keys that
// one of them has created.
type Store interface {
	// Create makes a new key under a name that is free. If the name is taken,
	// by a usable key or not, it returns an error that matches ErrExists and
	// changes nothing. When it returns without error the key survives a
	// restart, as far as the Store keeps keys at all.
	Create(ctx context.Context, name string) (Key, error)

	// Open finds the key of that name. The error matches ErrNotFound if there
	// is none, ErrKeyLost if there is one that this device can no longer use,
	// and ErrCorrupt if what is stored under the name cannot be understood.
	Open(ctx context.Context, name string) (Key, error)

	// Delete destroys the key of that name, so that the name is free. A name
	// that holds no key is not an error.
	Delete(ctx context.Context, name string) error

	// List returns the names that Open would not answer with ErrNotFound, in
	// ascending order.
	List(ctx context.Context) ([]string, error)
}

// These errors say what is wrong with a key, for errors.Is. An error that matches one of
// them also matches its cause. The text of many errors says what an operator can do.
var (
	// ErrNotFound: no key of that name. Creating one is safe.
	ErrNotFound = errors.New("no such key")
	// ErrExists: the name is taken.
	ErrExists = errors.New("key already exists")
	// ErrKeyLost: another device has made the key, or the device has been cleared since
	// then. The key can never sign again. The instance has to enrol anew.
	ErrKeyLost = errors.New("key is lost")
	// ErrCorrupt: what is stored for the key is damaged or not a key.
	ErrCorrupt = errors.New("stored key is corrupt")
	// ErrLockedOut: the device refuses to sign, because it has seen too many wrong PINs.
	// It recovers with time.
	ErrLockedOut = errors.New("device is locked out")
	// ErrAuth: the PIN or password for the key or its hierarchy is wrong or missing. Do
	// not try again with the same one: each try may count toward a lockout. This module
	// never does.
	ErrAuth = errors.New("authorization failed")
	// ErrPolicy: the key's usage policy is not satisfied. For example, the device has
	// booted something else than what the key is bound to.
	ErrPolicy = errors.New("key policy not satisfied")
	// ErrUnavailable: the device cannot be used now: absent, busy, no
	// permission, not answering. Trying later may help.
	ErrUnavailable = errors.New("key device unavailable")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("key store is closed")
)

// nameCharacters and maxName are what a key's name consists of. (A regular expression would
// say so in one line, and add 190 KiB to a program for a small device.)
const (
	nameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	maxName        = 128
)

// CheckName returns an error unless name can name a key: 1 to 128 characters out of
// A–Z a–z 0–9 . _ -, the first not a dot, so that a name is always a plain file
// name. Every Store applies it.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '.' || strings.Trim(name, nameCharacters) != "" {
		// %.40q: a name may be anything, also a megabyte.
		return fmt.Errorf("keystore: invalid key name %.40q: use 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with a dot", name)
	}
	return nil
}

// OpenOrCreate opens the key of that name, or creates it if, and only if, there
// is none. A key that is lost or corrupt is reported and left as it is.
// Several processes may call it at once with one name: all get the same key.
func OpenOrCreate(ctx context.Context, s Store, name string) (Key, error) {
	key, err := s.Open(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return key, err
	}
	key, err = s.Create(ctx, name)
	if errors.Is(err, ErrExists) {
		// Another process was faster, between our Open and our Create.
		return s.Open(ctx, name)
	}
	return key, err
}
