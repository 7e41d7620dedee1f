package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
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

// loadParent makes the storage root key, if handle is the owner hierarchy, or
// looks at the persistent key there. It refuses one with another Name than
// pinned, unless that is nil. The caller must release it.
func (c *call) loadParent(handle tpm2.TPMHandle, pinned []byte) (*object, error) {
	find := c.readParent
	if handle == tpm2.TPMRHOwner {
		find = c.findRoot
	}
	p, err := find(handle)
	if err == nil && pinned != nil && !bytes.Equal(p.Name.Buffer, pinned) {
		// One answer that was damaged on its way must not make anybody delete a
		// key.
		c.release(p)
		c.root = nil
		p, err = find(handle)
	}
	if err != nil {
		return nil, err
	}
	if pinned != nil && !bytes.Equal(p.Name.Buffer, pinned) {
		c.release(p)
		return nil, fmt.Errorf("%w: the TPM's storage root key is %x, and the key was made under %x: this is another TPM, or it has been cleared since: delete the key and enrol anew",
			keystore.ErrKeyLost, p.Name.Buffer, pinned)
	}
	return p, nil
}

func (c *call) makeStorageRootKey(hierarchy tpm2.TPMHandle) (*object, error) {
	p, err := c.makePrimary(hierarchy, c.ownerAuth, srkTemplate)
	if err != nil {
		return nil, fmt.Errorf("make the storage root key: %w", err)
	}
	return p, nil
}

// readParent looks at the persistent key that keys are wrapped with.
func (c *call) readParent(handle tpm2.TPMHandle) (*object, error) {
	p, err := c.readObject(handle)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("%w: %w: the key's parent is not at 0x%08x any more: the TPM has been cleared, or somebody has removed it: put it back, or delete the key and enrol anew",
			keystore.ErrKeyLost, err, uint32(handle))
	}
	return p, err
}
