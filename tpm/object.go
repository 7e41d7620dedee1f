// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// object is a key in the TPM that others are made or certified with: a parent, the
// endorsement key or the attestation key.
type object struct {
	tpm2.AuthHandle
	public    tpm2.TPMTPublic
	transient bool
	primary   *keyfile.Template // of a parent that is a primary key
}

// use sends a command that o, as a parent, authorizes by an empty password. A TPM
// counts it if o has another one, unless that is noDA, and so that is tried once.
func (o *object) use(c *call, command string, execute func() error) error {
	counts := !o.transient && !o.public.ObjectAttributes.NoDA
	if counts {
		if err := refused.of(holderOfObject(o), nil); err != nil {
			return about(theParent, err)
		}
	}
	err := execute()
	if err == nil {
		if counts {
			c.takenBare(o.Name)
		}
		return nil
	}
	err = unlessAnswered(counts && !c.bare[string(o.Name.Buffer)], fmt.Errorf("%s: %w", command, err))
	if slices.ContainsFunc(wrongAuth, func(code error) bool { return errors.Is(err, code) }) {
		err = about(theParent, err)
	}
	if counts && isRefusal(err) {
		refused.note(holderOfObject(o), nil, err)
	}
	return err
}

// makePrimary makes a primary key of a hierarchy that has the password.
func (c *call) makePrimary(hierarchy tpm2.TPMHandle, password []byte, template tpm2.TPMTPublic) (*object, error) {
	auth, done, err := c.hierarchyAuthorization(password)
	if err != nil {
		return nil, err
	}
	defer done()
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: auth},
		InPublic:      tpm2.New2B(template),
	}.Execute(c)
	if err != nil {
		return nil, about(hierarchySubject(hierarchy), err)
	}
	if err := c.adopt(rsp.ObjectHandle); err != nil {
		return nil, err
	}
	p, err := newObject(rsp.ObjectHandle, rsp.OutPublic)
	if err == nil && !follows(rsp.OutPublic, template) {
		err = fmt.Errorf("%w: TPM2_CreatePrimary made another key than it was asked for", errGarbled)
	}
	if err != nil {
		c.flush(rsp.ObjectHandle)
		return nil, err
	}
	p.transient = true
	return p, nil
}

func hierarchySubject(hierarchy tpm2.TPMHandle) subject {
	if hierarchy == tpm2.TPMRHEndorsement {
		return theEndorsement
	}
	return theOwner
}

// readObject looks at a persistent key.
func (c *call) readObject(handle tpm2.TPMHandle) (*object, error) {
	public, _, err := c.readPublic(handle)
	if err != nil {
		return nil, fmt.Errorf("read the key at 0x%08x: %w", uint32(handle), err)
	}
	return newObject(handle, public)
}

func (c *call) release(o *object) {
	if o.transient {
		c.flush(o.Handle)
	}
}

// newObject computes the Name itself: what the TPM says would let whoever sits
// on the bus claim any.
func newObject(handle tpm2.TPMHandle, public tpm2.TPM2BPublic) (*object, error) {
	contents, err := public.Contents()
	if err != nil {
		return nil, fmt.Errorf("%w: public area of 0x%08x: %w", errGarbled, uint32(handle), err)
	}
	name, err := tpm2.ObjectName(contents)
	if err != nil {
		return nil, fmt.Errorf("%w: public area of 0x%08x: %w", errGarbled, uint32(handle), err)
	}
	return &object{
		AuthHandle: tpm2.AuthHandle{Handle: handle, Name: *name, Auth: tpm2.PasswordAuth(nil)},
		public:     *contents,
	}, nil
}

// hierarchyAuthorization returns a session for one command with a hierarchy.
// done ends it. A password session serves an empty password; any other stays
// off the bus.
func (c *call) hierarchyAuthorization(password []byte) (auth tpm2.Session, done func(), err error) {
	if len(password) == 0 {
		return tpm2.PasswordAuth(nil), func() {}, nil
	}
	if err := checkFIPS(fmt.Sprintf("a hierarchy's password of less than %d bytes", minFIPSKey), len(password)); err != nil {
		return nil, nil, err
	}
	auth, _, err = tpm2.HMACSession(c, tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth(password))
	if err != nil {
		return nil, nil, fmt.Errorf("open a session for the hierarchy: %w", err)
	}
	handle := auth.Handle()
	if err := c.adopt(handle); err != nil {
		return nil, nil, err
	}
	return auth, func() { c.flush(handle) }, nil
}
