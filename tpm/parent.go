// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// srkTemplate is the storage root key that TSS2 key files mean by the parent
// TPM_RH_OWNER: template H-2 of the TCG EK Credential Profile, section B.4.5,
// with a unique field of size zero. It differs from go-tpm's ECCSRKTemplate in
// the latter, and gives another key.
var srkTemplate = func() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}()

var rsaTemplate = func() tpm2.TPMTPublic {
	t := tpm2.RSASRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return t
}()

// parentTemplates are the primary keys of the owner hierarchy that keys are wrapped
// with.
var parentTemplates = map[keyfile.Template]tpm2.TPMTPublic{
	keyfile.StorageRootKey: srkTemplate,
	keyfile.RSAParent:      rsaTemplate,
	keyfile.Provisioned:    tpm2.ECCSRKTemplate,
	keyfile.Legacy: withAttributes(srkTemplate, func(a *tpm2.TPMAObject) {
		a.FixedTPM, a.FixedParent = false, false
	}),
	keyfile.ToolsECC: withAttributes(srkTemplate, func(a *tpm2.TPMAObject) { a.NoDA = false }),
	keyfile.ToolsRSA: withAttributes(rsaTemplate, func(a *tpm2.TPMAObject) { a.NoDA = false }),
}

// quickTemplates are those of them that are made in a moment, and may have been at a
// persistent handle.
var quickTemplates = []keyfile.Template{keyfile.StorageRootKey, keyfile.Provisioned, keyfile.ToolsECC}

func withAttributes(t tpm2.TPMTPublic, change func(*tpm2.TPMAObject)) tpm2.TPMTPublic {
	change(&t.ObjectAttributes)
	return t
}

// guesses returns the parents that a key of tpm2_encodeobject may have beside the
// one that its file names. The slowest to make are the last.
func guesses(k *keyfile.File) []keyfile.Parent {
	if k.Parent.Handle != tpm2.TPMRHOwner || k.Parent.Template != keyfile.StorageRootKey {
		return nil
	}
	return []keyfile.Parent{
		{Handle: tpm2.TPMRHOwner, Template: keyfile.ToolsECC},
		{Handle: persistentSRK},
		{Handle: tpm2.TPMRHOwner, Template: keyfile.ToolsRSA},
	}
}

// loadParent makes a primary key of the owner hierarchy, or looks at a persistent
// key. It refuses one with another Name than is pinned. The caller must release it.
func (c *call) loadParent(parent keyfile.Parent) (*object, error) {
	p, err := c.findParent(parent)
	differs := func() bool { return parent.Name != nil && !bytes.Equal(p.Name.Buffer, parent.Name) }
	if err == nil && differs() {
		// One answer that was damaged on its way must not make anybody delete a
		// key.
		c.release(p)
		delete(c.parents, parent.Template)
		p, err = c.findParent(parent)
	}
	if err == nil && differs() {
		c.release(p)
		err = fmt.Errorf("%w: the TPM's storage root key is %x, and the key was made under %x: this is another TPM, or it has been cleared since: delete the key and enrol anew",
			keystore.ErrKeyLost, p.Name.Buffer, parent.Name)
	}
	if errors.Is(err, keystore.ErrKeyLost) && parent.Handle != tpm2.TPMRHOwner && parent.Name != nil {
		return c.remakeParent(parent.Name, err)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// remakeParent makes the primary key that has been at a persistent handle and is not
// any more: whoever removes it has not cleared the TPM. It returns lost if the key is
// none that is made in a moment.
func (c *call) remakeParent(name []byte, lost error) (*object, error) {
	for _, template := range quickTemplates {
		p, err := c.makeParent(template)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(p.Name.Buffer, name) {
			return p, nil
		}
		c.release(p)
	}
	return nil, lost
}

func (c *call) findParent(parent keyfile.Parent) (*object, error) {
	if parent.Handle == tpm2.TPMRHOwner {
		return c.findPrimary(parent.Template)
	}
	return c.readParent(parent.Handle)
}

func (c *call) makeParent(template keyfile.Template) (*object, error) {
	public, ok := parentTemplates[template]
	if !ok {
		return nil, fmt.Errorf("%w: the file names a parent %.40q, which a later version may know", keystore.ErrUnavailable, template)
	}
	p, err := c.makePrimary(tpm2.TPMRHOwner, c.ownerAuth, public)
	if err != nil {
		return nil, fmt.Errorf("make the storage root key: %w", err)
	}
	p.primary = &template
	return p, nil
}

// readParent looks at the persistent key that keys are wrapped with. That it is not
// there matches keystore.ErrKeyLost, which its callers know better.
func (c *call) readParent(handle tpm2.TPMHandle) (*object, error) {
	p, err := c.readObject(handle)
	if !errors.Is(err, tpm2.TPMRCHandle) {
		return p, err
	}
	if err := c.confirmAbsent(handle); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w: the key's parent is not at 0x%08x any more: the TPM has been cleared, or somebody has removed it: put it back, or delete the key and enrol anew",
		keystore.ErrKeyLost, err, uint32(handle))
}

// checkPinned refuses to let a storage root key have a PIN that is none of those
// that a folder's keys were made under.
func checkPinned(name []byte, pinned [][]byte) error {
	if len(pinned) == 0 || slices.ContainsFunc(pinned, func(p []byte) bool { return bytes.Equal(p, name) }) {
		return nil
	}
	return fmt.Errorf("%w: the TPM's storage root key is %x, and the other keys of the folder were made under %x: this is another TPM, it has been cleared, or somebody on its bus pretends to be it: it gets no PIN until those keys are deleted; or use another folder",
		keystore.ErrUnavailable, name, pinned[0])
}
