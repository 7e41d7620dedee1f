package tpm

import (
	"errors"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// savedRoot is the saved context of the storage root key, which takes long to make:
// the next session is salted to it.
type savedRoot struct {
	key     object
	context tpm2.TPMSContext
}

// findRoot returns the storage root key, which is made if it is not saved.
func (c *call) findRoot() (*object, error) {
	if c.root == nil {
		return c.makeParent(keyfile.StorageRootKey)
	}
	rsp, err := tpm2.ContextLoad{Context: c.root.context}.Execute(c)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		c.root = nil
		return c.makeParent(keyfile.StorageRootKey)
	}
	if err != nil {
		return nil, err
	}
	if err := c.adopt(rsp.LoadedHandle); err != nil {
		return nil, err
	}
	loaded := c.root.key
	loaded.Handle = rsp.LoadedHandle
	return &loaded, nil
}

// saveRoot saves the storage root key. It is called when a session that is salted to
// it was idle: the next one is for the first signature after a pause, which somebody
// waits for.
func (c *call) saveRoot(name string) {
	p, err := c.makeParent(keyfile.StorageRootKey)
	if err != nil {
		_ = c.checked(err) // who needs the key is told
		return
	}
	defer c.release(p)
	rsp, err := tpm2.ContextSave{SaveHandle: p.Handle}.Execute(c)
	if err == nil && len(rsp.Context.ContextBlob.Buffer) > 0 && string(p.Name.Buffer) == name {
		c.root = &savedRoot{*p, rsp.Context}
	}
}
