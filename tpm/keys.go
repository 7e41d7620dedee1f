package tpm

import (
	"context"
	"fmt"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// KeyOptions says what key CreateKey makes.
type KeyOptions struct {
	// Algorithm is the JWS algorithm: "ES256", or "ES384" where the TPM has
	// P-384. "" is "ES256".
	Algorithm string

	// PIN makes a key that signs only with the PIN that Config.PIN gives. Wrong
	// PINs count toward the TPM's lockout. Without, whoever may use the TPM and
	// has the key file can sign, and a lockout does not touch the key.
	PIN bool

	// PCRs binds the key to the values that these PCRs (0 to 23, SHA-256 bank)
	// have now: when the device boots something else, the key does not sign.
	// Empty: bound to nothing.
	PCRs []int
}

// Create makes an ES256 key: with a PIN if Config.PIN is set, without one
// otherwise. See [keystore.Store].
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
	if o.PIN {
		if pin, err = s.askNewPIN(ctx, name); err != nil {
			return nil, explain(doing, err)
		}
	}
	k, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) { return c.create(template, o.PCRs, pin) }, pin)
	if err != nil {
		return nil, explain(doing, err)
	}
	if err := s.folder.Create(name, k.Text); err != nil {
		// Nobody can reach the key any more. It is only in a slot of the TPM,
		// and leaves it at the latest for the next key.
		s.forget(ctx, k)
		return nil, err
	}
	return newKey(s, name, k), nil
}

func (s *Store) askNewPIN(ctx context.Context, name string) ([]byte, error) {
	done, err := s.turnToAsk(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.askPIN(ctx, name)
}

// Open finds a key and loads it into the TPM. See [keystore.Store].
//
// It takes any TSS2 PEM key file with an ECDSA key on P-256 or P-384, as
// OpenSSL's tpm2 provider, ssh-tpm-agent and tpm2-tools write them, whose parent
// is the owner hierarchy or a persistent key. Such a file does not say which
// storage root key it belongs to; Open adds that when it has loaded the key for
// the first time. Files of tpm2-tools 5.4 say the opposite of what is true about
// the PIN. That is found out by trying without one, which the TPM counts as a wrong
// try if there is one and the key is not noDA; after the first signature the file
// says what is true.
func (s *Store) Open(ctx context.Context, name string) (keystore.Key, error) {
	doing := fmt.Sprintf("open key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	k, err := s.folder.load(name)
	if err != nil {
		return nil, err
	}
	loaded, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) {
		parentName, err := c.load(k)
		if err != nil || k.ParentName != nil || parentName == nil {
			return k, err
		}
		c.key.file = k.With(parentName, k.Handle)
		return c.key.file, nil
	})
	if err != nil {
		return nil, explain(doing, err)
	}
	// In a folder that cannot be written the key can be used all the same.
	if loaded != k && s.note(ctx, name, k, loaded) == nil {
		loaded = s.tryWithoutPIN(ctx, name, loaded)
	}
	return newKey(s, name, loaded), nil
}

// tryWithoutPIN finds out whether a foreign key that is said to have a PIN has one,
// when there is none to be had: tpm2-tools 5.4 says so of keys without. A wrong try
// may count toward a lockout, so there is one in the life of the file.
func (s *Store) tryWithoutPIN(ctx context.Context, name string, k *keyfile.File) *keyfile.File {
	if s.config.PIN != nil || !k.NeedsPIN() || k.UsesPolicy {
		return k
	}
	_, err := run(ctx, s.device, func(c *call) ([]byte, error) { return c.sign(k, make([]byte, k.CoordinateSize), false, nil) })
	if err != nil {
		return k
	}
	learnt := k.WithEmptyAuth(true)
	_ = s.note(ctx, name, k, learnt) // it is true all the same
	return learnt
}

// note writes down what Open or a signature has learnt of a key. What is only noted
// keeps nobody waiting for another process.
func (s *Store) note(ctx context.Context, name string, read, learnt *keyfile.File) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	unlock, err := s.folder.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.folder.update(name, read, learnt)
}

// Delete removes a key's file, takes the key out of the TPM, and removes it from
// the persistent handle where Persist has put it. See [keystore.Store]. A
// [keystore.Key] that was opened before can still sign until the Store is
// closed, and where ctx ends early the key leaves the TPM only then.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	unlock, err := s.folder.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// A file that is no key file must be removable, too.
	if k := s.folder.remains(name); k != nil {
		if err := s.withdraw(ctx, k); err != nil {
			return explain(fmt.Sprintf("delete key %q", name), err)
		}
	}
	return s.folder.Delete(name)
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
