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
	context []byte // TPMS_CONTEXT
}

// findPrimary returns a primary key, which is made if it is not saved.
func (c *call) findPrimary(template keyfile.Template) (*object, error) {
	saved, ok := c.parents[template]
	if !ok {
		return c.makeParent(template)
	}
	handle, err := c.loadContext(saved.context)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		delete(c.parents, template)
		return c.makeParent(template)
	}
	if err != nil {
		return nil, err
	}
	if err := c.adopt(handle); err != nil {
		return nil, err
	}
	loaded := saved.key
	loaded.Handle = handle
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
	context, err := c.saveContext(p.Handle)
	if err == nil && context != nil && string(p.Name.Buffer) == s.kind.saltedTo {
		if c.parents == nil {
			c.parents = make(map[keyfile.Template]savedParent)
		}
		c.parents[*s.primary] = savedParent{*p, context}
	}
}
