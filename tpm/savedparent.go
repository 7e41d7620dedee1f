// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"errors"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// savedParent is the saved context of a primary key, which takes long to make: the
// next session is salted to it.
type savedParent struct {
	key     object
	context tpm2.TPMSContext
}

// findPrimary returns a primary key, which is made if it is not saved.
func (c *call) findPrimary(template keyfile.Template) (*object, error) {
	saved, ok := c.parents[template]
	if !ok {
		return c.makeParent(template)
	}
	rsp, err := tpm2.ContextLoad{Context: saved.context}.Execute(c)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		delete(c.parents, template)
		return c.makeParent(template)
	}
	if err != nil {
		return nil, err
	}
	if err := c.adopt(rsp.LoadedHandle); err != nil {
		return nil, err
	}
	loaded := saved.key
	loaded.Handle = rsp.LoadedHandle
	return &loaded, nil
}

// saveParent saves the primary key that s is salted to, if it is one. It is called
// when s was idle: the next session is for the first signature after a pause, which
// somebody waits for.
func (c *call) saveParent(s *session) {
	if s.primary == nil {
		return
	}
	if _, ok := c.parents[*s.primary]; ok {
		return
	}
	p, err := c.makeParent(*s.primary)
	if err != nil {
		_ = c.checked(err) // who needs the key is told
		return
	}
	defer c.release(p)
	rsp, err := tpm2.ContextSave{SaveHandle: p.Handle}.Execute(c)
	if err == nil && len(rsp.Context.ContextBlob.Buffer) > 0 && string(p.Name.Buffer) == s.kind.saltedTo {
		if c.parents == nil {
			c.parents = make(map[keyfile.Template]savedParent)
		}
		c.parents[*s.primary] = savedParent{*p, rsp.Context}
	}
}
