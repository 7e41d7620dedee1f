// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// key is a key of a Store.
type key struct {
	store     *Store
	name      string
	file      *keyfile.File
	holder    digest      // of the key's PIN
	foreign   bool        // the file on the disk is another program's, and does not name the parent
	untrusted error       // why the key gets no PIN, if its file is wrong about that; nil: it does
	wrongTry  atomic.Bool // the key was tried without a PIN, and the TPM has counted that
	noted     atomic.Bool // the file says what the use of the key has shown
}

var _ keystore.Key = (*key)(nil)

// newKey returns the key of a file, which may know more than the file on the disk.
func newKey(s *Store, name string, k *keyfile.File, foreign bool) *key {
	return &key{store: s, name: name, file: k, holder: holderOf(k), foreign: foreign}
}

func (k *key) Algorithm() string        { return k.file.JWS }
func (k *key) Public() crypto.PublicKey { return k.file.ECDSA }

// Sign hashes here and has the TPM sign the hash: one command when the key is
// loaded.
func (k *key) Sign(ctx context.Context, signingInput []byte) ([]byte, error) {
	digest := k.digest(signingInput)
	signature, err := withPIN(ctx, k, func(pin []byte) ([]byte, error) { return k.sign(ctx, digest, pin) })
	if err != nil {
		return nil, explain(fmt.Sprintf("sign with key %q", k.name), err)
	}
	return signature, nil
}

// digest has no hash made where the key is of the usual kind: that would be a fifth of
// what a signature takes outside of the TPM.
func (k *key) digest(input []byte) []byte {
	if k.file.Hash == crypto.SHA256 {
		sum := sha256.Sum256(input)
		return sum[:]
	}
	hash := k.file.Hash.New()
	hash.Write(input)
	return hash.Sum(nil)
}

func (k *key) sign(ctx context.Context, digest, pin []byte) ([]byte, error) {
	return run(ctx, k.store.device, func(c *call) ([]byte, error) {
		needsPIN := k.needsPIN()
		signature, err := c.sign(k.file, digest, needsPIN, pin)
		return signature, k.learn(err, needsPIN, pin)
	}, pin)
}

// String names the key and shows nothing of it.
func (k *key) String() string { return fmt.Sprintf("%s key %q in a TPM", k.file.JWS, k.name) }

// GoString returns what String returns.
func (k *key) GoString() string { return k.String() }

// MarshalText returns what String returns, for JSON and logs.
func (k *key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
