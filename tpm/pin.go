// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// needsPIN reports whether the key is used with a PIN: as far as the TPM has told
// since the process began, and otherwise as its file says. A file of another
// program that says so may be wrong, which is found out where no PIN is to be had.
func (k *key) needsPIN() bool {
	if refused.of(k.holder, nil) != nil {
		return true
	}
	unsure := k.foreign && k.store.config.PIN == nil && !k.file.UsesPolicy
	return k.file.NeedsPIN() && !unsure
}

// learn takes note of what an error of TPM2_Sign or TPM2_Certify says about the
// key's PIN, which is nil if none was given, and returns errNeedPIN if there is a
// point in asking for it now. An error about anything else says nothing about it.
func (k *key) learn(err error, neededPIN bool, pin []byte) error {
	if !isRefusal(err) || subjectOf(err) != theKey || errors.Is(err, errMoved) {
		return err
	}
	if k.file.UsesPolicy && !k.file.Policy.HasAuthValue() {
		return err
	}
	if neededPIN {
		if pin != nil {
			refused.note(k.holder, pin, err)
		}
		return err
	}
	if !k.file.NoDA {
		k.wrongTry.Store(true) // was counted: there must not be another one in the life of the file
	} else if k.store.config.PIN == nil {
		return err
	}
	refused.note(k.holder, nil, err)
	if k.store.config.PIN == nil {
		return err
	}
	return errNeedPIN
}

// withPIN calls f without a PIN, and with it if f then returns errNeedPIN. It
// asks for the PIN outside of the queue for the TPM: a user may take long. For what
// nobody waits for it asks nobody.
func withPIN[T any](ctx context.Context, k *key, f func(pin []byte) (T, error)) (result T, err error) {
	err = k.askIfNeeded(ctx, func(pin []byte) (err error) {
		result, err = f(pin)
		return err
	})
	return result, err
}

// askIfNeeded is withPIN without a result.
func (k *key) askIfNeeded(ctx context.Context, f func(pin []byte) error) (err error) {
	defer func() { k.note(ctx, err) }()
	before := refused.last(k.holder)
	if err := f(nil); !errors.Is(err, errNeedPIN) {
		return err
	}
	if _, inBackground := keystore.Background(ctx); inBackground {
		return fmt.Errorf("%w: the PIN is not known, and is not asked for in the background", keystore.ErrAuth)
	}
	if k.untrusted != nil {
		return k.untrusted
	}
	done, err := k.store.turnToAsk(ctx)
	if err != nil {
		return err
	}
	defer done()
	if last := refused.last(k.holder); last != before {
		return last // of the PIN that this one has waited for
	}
	// Whoever had the turn before may have opened the session.
	if err := f(nil); !errors.Is(err, errNeedPIN) {
		return err
	}
	pin, err := k.store.askPIN(ctx, k.name)
	if err != nil {
		return err
	}
	defer clear(pin)
	if err := refused.of(k.holder, pin); err != nil {
		return err
	}
	return f(bytes.Clone(pin))
}

// note writes into the key's file what the use of the key has shown: its parent,
// and whether it has a PIN. That it has is noted before the PIN is known to be
// right, if the try without was counted.
func (k *key) note(ctx context.Context, err error) {
	if k.noted.Load() {
		return
	}
	empty := k.file.EmptyAuth
	switch {
	case refused.of(k.holder, nil) != nil && (err == nil || k.wrongTry.Load()):
		empty = false
	case err == nil && k.foreign && !k.needsPIN() && !k.file.NoDA && !k.file.UsesPolicy:
		empty = true
	case err != nil:
		return
	}
	if k.noted.Swap(true) || empty == k.file.EmptyAuth && !k.foreign {
		return
	}
	k.store.note(ctx, k.name, k.file, func(now *keyfile.File) *keyfile.File {
		if now.Parent.Name == nil && k.untrusted == nil { // or the next process would trust it
			now = now.WithParent(k.file.Parent)
		}
		return now.WithEmptyAuth(empty)
	})
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

// ofKey notes that an error of a command that was authorized by the key, in its
// first session, is about the key.
func ofKey(err error) error {
	var code tpm2.TPMFmt1Error
	if errors.As(err, &code) {
		if ofSession, n := code.Session(); ofSession && n != 1 {
			return err
		}
	}
	return about(theKey, err)
}
