// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// KeyOptions says what key CreateKey makes.
type KeyOptions struct {
	// Algorithm is the JWS algorithm: "ES256", or "ES384" where the TPM has
	// P-384. "" is "ES256".
	Algorithm string

	// PIN makes a key that signs only with the PIN that Config.PIN returns. Wrong PINs
	// count toward the TPM's lockout. With a key without a PIN anybody can sign who may
	// use the TPM and has the key file. A lockout does not affect such a key.
	PIN bool

	// PCRs binds the key to the present values of these PCRs (0 to 23, SHA-256 bank). If
	// the device boots something else, the key does not sign. Empty means that the key is
	// not bound.
	PCRs []int
}

// Create makes an ES256 key. The key has a PIN if Config.PIN is set. See
// [keystore.Store].
func (s *Store) Create(ctx context.Context, name string) (keystore.Key, error) {
	return s.CreateKey(ctx, name, KeyOptions{PIN: s.config.PIN != nil})
}

// CreateKey makes a key of the kind that o describes, with the errors of Create.
// The key is made in the TPM under its storage root key and is never anywhere
// in the clear. It is fixedTPM and fixedParent, signs what it is given (is not
// restricted), and its private part, encrypted by the TPM, is in the key file.
// Nothing is sent if the name is taken or the options are not valid.
func (s *Store) CreateKey(ctx context.Context, name string, o KeyOptions) (keystore.Key, error) {
	doing := fmt.Sprintf("create key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	template, err := newTemplate(o)
	if err != nil {
		return nil, err
	}
	if err := s.folder.Vacant(name); err != nil {
		return nil, err
	}
	var pin []byte
	var pinned [][]byte
	if o.PIN {
		pinned = s.folder.pins().names(keyfile.Parent{Handle: tpm2.TPMRHOwner})
		if pin, err = s.askNewPIN(ctx, name); err != nil {
			return nil, explain(doing, err)
		}
	}
	k, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) { return c.create(template, o.PCRs, pin, pinned) }, pin)
	if err != nil {
		return nil, explain(doing, err)
	}
	if err := s.folder.Create(name, k.Text); err != nil {
		// Nobody can reach the key any more. It is only in a slot of the TPM,
		// and leaves it at the latest for the next key.
		s.forget(ctx, k)
		return nil, err
	}
	return newKey(s, name, k, false), nil
}

func (s *Store) askNewPIN(ctx context.Context, name string) ([]byte, error) {
	done, err := s.turnToAsk(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.askPIN(ctx, name)
}

// Open finds a key and loads it into the TPM. See [keystore.Store]. It changes no
// file.
//
// It takes any TSS2 PEM key file with an ECDSA key on P-256 or P-384, as OpenSSL's tpm2
// provider, ssh-tpm-agent and tpm2-tools write them, whose parent is in the owner
// hierarchy or a persistent key without a password. Such a file does not say which
// storage root key it belongs to. Files of tpm2_encodeobject even name another key. The
// first signature adds to the file what [Store.Open] has found out, and the rest of the
// file stays as it is.
//
// Files of tpm2-tools up to 5.7 say the opposite of what is true about the PIN.
// That is found out by a signature without one, which the TPM counts as a wrong try
// if there is one and the key is not noDA; the file says what is true from then on.
func (s *Store) Open(ctx context.Context, name string) (keystore.Key, error) {
	doing := fmt.Sprintf("open key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	onDisk, err := s.folder.load(name)
	if err != nil {
		return nil, err
	}
	foreign := onDisk.Parent.Name == nil
	k := s.pinnedAs(onDisk)
	// What a PIN will be encrypted for has to be one of those that are pinned here.
	var mayPin func(keyfile.Parent) error
	if foreign {
		pinned := s.folder.pins()
		mayPin = func(p keyfile.Parent) error { return checkPinned(p.Name, pinned.names(p)) }
	}
	loaded, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) {
		c.mayPin = mayPin
		parent, err := c.load(k)
		if err != nil || k.Parent.Name != nil || parent.Name == nil {
			return k, err
		}
		c.key.file = k.WithParent(parent)
		return c.key.file, nil
	})
	var untrusted error
	if err == nil && foreign {
		untrusted = mayPin(loaded.Parent)
		if loaded.NeedsPIN() {
			err = untrusted
		}
	}
	if err != nil {
		return nil, explain(doing, err)
	}
	s.pins.Store(holderOf(loaded), loaded.Parent)
	opened := newKey(s, name, loaded, foreign)
	opened.untrusted = untrusted
	return opened, nil
}

// pinnedAs returns k with the parent that the Store has found for it, if its file
// does not say that yet.
func (s *Store) pinnedAs(k *keyfile.File) *keyfile.File {
	if k.Parent.Name != nil {
		return k
	}
	if parent, ok := s.pins.Load(holderOf(k)); ok {
		return k.WithParent(parent.(keyfile.Parent))
	}
	return k
}

// Delete removes a key's file, takes the key out of the TPM, and removes it from the
// persistent handle where Persist has put it. See [keystore.Store]. A [keystore.Key] that
// was opened before can still sign until the Store is closed. If ctx ends early, the key
// stays in the TPM until then.
//
// A file that is no key's is removed, too, and so is a symbolic link, without what it
// leads to. One that cannot be read now stays, and the error matches
// keystore.ErrUnavailable. So it is with one that is damaged, too large for a key's, or a
// link, and names a persistent handle at which something is, or that cannot be told: a
// key that nobody knows of could still sign.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	unlock, err := s.folder.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	found, err := s.folder.remains(ctx, name)
	if err != nil {
		return err
	}
	var isCopy func([]byte) bool
	switch {
	case found.key != nil:
		err = s.withdraw(ctx, found.key)
		isCopy = found.key.HasKey
	case !found.legible:
		err = fmt.Errorf("%w: %s %s, and names a persistent handle that cannot be read: look for the key at each (tpm2_getcap handles-persistent, tpm2_readpublic -c HANDLE), remove it there (tpm2_evictcontrol -C o -c HANDLE), and the file then",
			keystore.ErrUnavailable, s.folder.File(name), found.why)
	case len(found.handles) > 0:
		_, err = run(ctx, s.device, func(c *call) (struct{}, error) { return struct{}{}, c.confirmFree(found) })
	}
	if err != nil {
		return explain(fmt.Sprintf("delete key %q", name), err)
	}
	return s.folder.Delete(name, isCopy)
}

// List returns the names of all keys. See [keystore.Store].
func (s *Store) List(ctx context.Context) ([]string, error) {
	if err := s.device.ready(ctx); err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	return s.folder.List()
}

func (s *Store) check(ctx context.Context, name string) error {
	if err := keystore.CheckName(name); err != nil {
		return err
	}
	if err := s.device.ready(ctx); err != nil {
		return fmt.Errorf("tpm: %w", err)
	}
	return nil
}

// withdraw removes a key from the TPM.
func (s *Store) withdraw(ctx context.Context, k *keyfile.File) error {
	if k.Handle == 0 {
		s.forget(ctx, k)
		return nil
	}
	_, err := run(ctx, s.device, func(c *call) (struct{}, error) { return struct{}{}, c.unpersist(k) })
	return err
}

// forget flushes a key, as far as it is loaded. Where that fails, the next
// operation or Close does it.
func (s *Store) forget(ctx context.Context, k *keyfile.File) {
	_, _ = run(ctx, s.device, func(c *call) (struct{}, error) {
		c.forget(k)
		return struct{}{}, nil
	})
}
