package tpm

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// key is a key of a Store.
type key struct {
	store    *Store
	name     string
	file     *keyfile.File
	needsPIN atomic.Bool
	learnt   atomic.Bool // needsPIN is not what the file says, which is yet to be written there
}

var _ keystore.Key = (*key)(nil)

func newKey(s *Store, name string, k *keyfile.File) *key {
	result := &key{store: s, name: name, file: k}
	result.needsPIN.Store(k.NeedsPIN())
	return result
}

func (k *key) Algorithm() string        { return k.file.JWS }
func (k *key) Public() crypto.PublicKey { return k.file.ECDSA }

// Sign hashes here and has the TPM sign the hash: one command when the key is
// loaded.
func (k *key) Sign(ctx context.Context, signingInput []byte) ([]byte, error) {
	hash := k.file.Hash.New()
	hash.Write(signingInput)
	digest := hash.Sum(nil)
	signature, err := withPIN(ctx, k, func(pin []byte) ([]byte, error) { return k.sign(ctx, digest, pin) })
	if err != nil {
		return nil, explain(fmt.Sprintf("sign with key %q", k.name), err)
	}
	return signature, nil
}

func (k *key) sign(ctx context.Context, digest, pin []byte) ([]byte, error) {
	return run(ctx, k.store.device, func(c *call) ([]byte, error) {
		needsPIN := k.needsPIN.Load()
		signature, err := c.sign(k.file, digest, needsPIN, pin)
		return signature, k.learnPIN(err, needsPIN)
	}, pin)
}

// learnPIN takes note when an error says that the key has a PIN although its file
// says that it has none, and returns errNeedPIN if there is a point in asking for
// it now. neededPIN is whether the PIN was used.
func (k *key) learnPIN(err error, neededPIN bool) error {
	if neededPIN || k.file.UsesPolicy && !k.file.Policy.HasAuthValue() {
		return err
	}
	switch {
	case errors.Is(err, errMoved):
		return err // about another key
	case errors.Is(err, tpm2.TPMRCBadAuth) && k.store.config.PIN != nil:
		k.needsPIN.Store(true)
		err = errNeedPIN
	case errors.Is(err, tpm2.TPMRCAuthFail) && !k.file.NoDA:
		// The wrong try without a PIN was counted. Whether there is one with
		// a PIN is up to the caller; one without would be wrong again.
		k.needsPIN.Store(true)
	default:
		return err
	}
	k.learnt.Store(k.file.EmptyAuth)
	return err
}

// noteLearnt writes into the key's file what learnPIN has found out, once the PIN
// has proved right: one answer of the TPM could be damaged.
func (k *key) noteLearnt(ctx context.Context) {
	if k.learnt.Load() && k.learnt.Swap(false) {
		// Where it cannot be written, each process finds it out for itself.
		_ = k.store.note(ctx, k.name, k.file, k.file.WithEmptyAuth(false))
	}
}

// withPIN calls f without a PIN, and with it if f then returns errNeedPIN. It
// asks for the PIN outside of the queue for the TPM: a user may take long.
func withPIN[T any](ctx context.Context, k *key, f func(pin []byte) (T, error)) (none T, err error) {
	defer func() {
		if err == nil {
			k.noteLearnt(ctx)
		}
	}()
	result, err := f(nil)
	if !errors.Is(err, errNeedPIN) {
		return result, err
	}
	done, err := k.store.turnToAsk(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	// Whoever had the turn before may have opened the session.
	result, err = f(nil)
	if !errors.Is(err, errNeedPIN) {
		return result, err
	}
	pin, err := k.store.askPIN(ctx, k.name)
	if err != nil {
		return none, err
	}
	defer clear(pin)
	return f(bytes.Clone(pin))
}

// turnToAsk waits for others who ask for a PIN.
func (s *Store) turnToAsk(ctx context.Context) (done func(), err error) {
	select {
	case s.pin <- struct{}{}:
		return func() { <-s.pin }, nil
	case <-s.device.life.Done():
		return nil, keystore.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another PIN: %w", ctx.Err())
	}
}

// askPIN asks for a key's PIN. Only whoever has the turn may call it.
func (s *Store) askPIN(ctx context.Context, name string) ([]byte, error) {
	if s.config.PIN == nil {
		return nil, fmt.Errorf("%w: the key has a PIN, and Config.PIN is not set", keystore.ErrAuth)
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.device.life, cancel)() // a user may take long
	pin, err := s.config.PIN(asking, name)
	if err == nil {
		err = checkPIN(pin)
	}
	switch {
	case err == nil:
		return pin, nil
	case ctx.Err() != nil:
		err = fmt.Errorf("waiting for the PIN: %w", ctx.Err())
	case s.device.life.Err() != nil:
		err = keystore.ErrClosed
	default:
		err = fmt.Errorf("%w: %w", keystore.ErrAuth, err)
	}
	clear(pin)
	return nil, err
}

// String names the key and shows nothing of it.
func (k *key) String() string { return fmt.Sprintf("%s key %q in a TPM", k.file.JWS, k.name) }

// GoString returns what String returns.
func (k *key) GoString() string { return k.String() }

// MarshalText returns what String returns, for JSON and logs.
func (k *key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
