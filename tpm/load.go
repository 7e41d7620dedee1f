// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// load makes a key ready for use, if it is not. It returns the parent that it was
// loaded under, or a zero one where that was not needed.
func (c *call) load(k *keyfile.File) (none keyfile.Parent, err error) {
	if c.key.isFor(k) {
		return none, nil
	}
	c.makeRoom()
	for _, shortcut := range []func(*keyfile.File) (bool, error){c.usePersistent, c.loadSaved} {
		if done, err := shortcut(k); done || err != nil {
			return none, err
		}
	}
	parent, err := c.loadFrom(k.Parent, k)
	if errors.Is(err, keystore.ErrKeyLost) && k.Parent.Name == nil {
		return c.loadRemade(k)
	}
	if !isAnothers(err) || k.Parent.Name != nil {
		return parent, err
	}
	// tpm2_encodeobject says the owner hierarchy of every parent that is not
	// persistent.
	for _, guess := range guesses(k) {
		parent, guessErr := c.loadFrom(guess, k)
		if guessErr == nil {
			return parent, nil
		}
		// What is not about the guess, such as a lockout or a TPM that is full, says
		// nothing about the key.
		if !errors.As(guessErr, new(tpm2.TPMFmt1Error)) {
			return none, guessErr
		}
	}
	return none, err
}

// loadFrom loads a key from its file, under a parent. It returns that with its Name.
func (c *call) loadFrom(parent keyfile.Parent, k *keyfile.File) (keyfile.Parent, error) {
	p, err := c.loadParent(parent)
	if err != nil {
		return keyfile.Parent{}, err
	}
	defer c.release(p)
	if parent.Handle != k.Parent.Handle && !p.transient && !p.public.ObjectAttributes.NoDA {
		return parent, tpm2.TPMRCIntegrity // a guess is not worth a wrong try at the parent's password
	}
	parent.Name = p.Name.Buffer
	if err := c.loadUnder(p, k); err != nil {
		return keyfile.Parent{}, err
	}
	if k.Parent.Name == nil && k.NeedsPIN() && c.mayPin != nil && c.mayPin(parent) == nil {
		k = k.WithParent(parent)
	}
	c.prepareSession(p, k)
	return parent, nil
}

// loadRemade loads a key whose parent is not at its persistent handle, under those that
// are made in a moment. Which it was the file does not say yet.
func (c *call) loadRemade(k *keyfile.File) (none keyfile.Parent, _ error) {
	for _, template := range quickTemplates {
		parent, err := c.loadFrom(keyfile.Parent{Handle: tpm2.TPMRHOwner, Template: template}, k)
		if err == nil {
			return keyfile.Parent{Handle: k.Parent.Handle, Name: parent.Name}, nil
		}
		if !isAnothers(err) {
			return none, err
		}
	}
	return none, fmt.Errorf("%w: the key's parent is not at 0x%08x, and its file does not say which that was: put it back, or enrol with a new key",
		keystore.ErrUnavailable, uint32(k.Parent.Handle))
}

// isAnothers reports whether TPM2_Load says that another parent has made the key.
func isAnothers(err error) bool {
	return errors.Is(err, tpm2.TPMRCIntegrity) && !errors.Is(err, keystore.ErrCorrupt)
}

// loadUnder sends TPM2_Load.
func (c *call) loadUnder(p *object, k *keyfile.File) error {
	var rsp *tpm2.LoadResponse
	err := p.use(c, "TPM2_Load", func() (err error) {
		rsp, err = tpm2.Load{ParentHandle: p.AuthHandle, InPrivate: k.Private, InPublic: k.Public}.Execute(c)
		return err
	})
	if errors.Is(err, tpm2.TPMRCIntegrity) && bytes.Equal(p.Name.Buffer, k.Parent.Name) {
		return fmt.Errorf("%w: %w: the parent is the one that the key was made under, so the key file is damaged", keystore.ErrCorrupt, err)
	}
	if err != nil {
		return about(theFile, damaged(err))
	}
	if err := c.adopt(rsp.ObjectHandle); err != nil {
		return err
	}
	c.key = &loadedKey{file: k, handle: rsp.ObjectHandle}
	return nil
}

// lacking are the codes for an algorithm that the TPM does not have.
var lacking = []error{tpm2.TPMRCCurve, tpm2.TPMRCScheme, tpm2.TPMRCHash, tpm2.TPMRCAsymmetric, tpm2.TPMRCKDF}

// damaged tells a key that the TPM does not understand from one that it does
// not know.
func damaged(err error) error {
	var code tpm2.TPMFmt1Error
	if !errors.As(err, &code) || errors.Is(err, tpm2.TPMRCIntegrity) {
		return err
	}
	for _, code := range lacking {
		if errors.Is(err, code) {
			return err
		}
	}
	if ok, _ := code.Parameter(); ok {
		return fmt.Errorf("%w: %w: the key file is damaged", keystore.ErrCorrupt, err)
	}
	return err
}

// loadSaved loads a key that had to make room for another one.
func (c *call) loadSaved(k *keyfile.File) (bool, error) {
	saved, ok := c.saved[string(k.Text)]
	if !ok {
		return false, nil
	}
	handle, err := c.loadContext(saved.context)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		delete(c.saved, string(k.Text))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.adopt(handle); err != nil {
		return false, err
	}
	c.key = &loadedKey{file: k, handle: handle}
	return true, nil
}
