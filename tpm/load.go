package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// load makes a key ready for use, if it is not. It returns the Name of the
// parent that it was loaded under, or nil where that was not needed.
func (c *call) load(k *keyfile.File) (parentName []byte, err error) {
	if c.key.isFor(k) {
		return nil, nil
	}
	c.makeRoom()
	for _, shortcut := range []func(*keyfile.File) (bool, error){c.usePersistent, c.loadSaved} {
		if done, err := shortcut(k); done || err != nil {
			return nil, err
		}
	}
	p, err := c.loadParent(k.Parent, k.ParentName)
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	if err := c.loadUnder(p, k); err != nil {
		return nil, err
	}
	c.prepareSession(p, k)
	return p.Name.Buffer, nil
}

// loadUnder sends TPM2_Load.
func (c *call) loadUnder(p *object, k *keyfile.File) error {
	rsp, err := tpm2.Load{ParentHandle: p.AuthHandle, InPrivate: k.Private, InPublic: k.Public}.Execute(c)
	if errors.Is(err, tpm2.TPMRCIntegrity) && bytes.Equal(p.Name.Buffer, k.ParentName) {
		return fmt.Errorf("%w: TPM2_Load: %w: the parent is the one that the key was made under, so the key file is damaged", keystore.ErrCorrupt, err)
	}
	if err != nil {
		return damaged("TPM2_Load", err)
	}
	if err := c.adopt(rsp.ObjectHandle); err != nil {
		return err
	}
	c.key = &loadedKey{file: k, handle: rsp.ObjectHandle}
	return nil
}

// damaged tells a key that the TPM does not understand from one that it does
// not know.
func damaged(command string, err error) error {
	var code tpm2.TPMFmt1Error
	if errors.As(err, &code) && !errors.Is(err, tpm2.TPMRCIntegrity) {
		if ok, _ := code.Parameter(); ok {
			return fmt.Errorf("%w: %s: %w: the key file is damaged, or the TPM does not have the key's algorithm", keystore.ErrCorrupt, command, err)
		}
	}
	return fmt.Errorf("%s: %w", command, err)
}

// loadSaved loads a key that had to make room for another one.
func (c *call) loadSaved(k *keyfile.File) (bool, error) {
	saved, ok := c.saved[string(k.Text)]
	if !ok {
		return false, nil
	}
	rsp, err := tpm2.ContextLoad{Context: saved.context}.Execute(c)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		delete(c.saved, string(k.Text))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.adopt(rsp.LoadedHandle); err != nil {
		return false, err
	}
	c.key = &loadedKey{file: k, handle: rsp.LoadedHandle}
	return true, nil
}
