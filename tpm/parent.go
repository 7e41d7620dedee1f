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

// parent is the storage key that a key is wrapped with, in the TPM.
type parent struct {
	tpm2.AuthHandle
	public    tpm2.TPMTPublic
	transient bool
}

// loadParent makes the storage root key, if handle is the owner hierarchy, or
// looks at the persistent key there. It refuses one with another Name than
// pinned, unless that is nil. The caller must release it.
func (c *call) loadParent(handle tpm2.TPMHandle, pinned []byte) (*parent, error) {
	find := c.readParent
	if handle == tpm2.TPMRHOwner {
		find = c.createPrimary
	}
	p, err := find(handle)
	if err == nil && pinned != nil && !bytes.Equal(p.Name.Buffer, pinned) {
		// One answer that was damaged on its way must not make anybody delete a
		// key.
		c.release(p)
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

func (c *call) release(p *parent) {
	if p.transient {
		c.flush(p.Handle)
	}
}

func (c *call) createPrimary(hierarchy tpm2.TPMHandle) (*parent, error) {
	p, err := c.makePrimary(hierarchy, c.ownerAuth, srkTemplate)
	if err != nil {
		return nil, fmt.Errorf("make the storage root key: %w", err)
	}
	return p, nil
}

// makePrimary makes a primary key of a hierarchy that has the password.
func (c *call) makePrimary(hierarchy tpm2.TPMHandle, password []byte, template tpm2.TPMTPublic) (*parent, error) {
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
		return nil, err
	}
	if err := c.adopt(rsp.ObjectHandle); err != nil {
		return nil, err
	}
	p, err := newParent(rsp.ObjectHandle, rsp.OutPublic)
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

func (c *call) readParent(handle tpm2.TPMHandle) (*parent, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(c)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("%w: %w: the key's parent is not at 0x%08x any more: the TPM has been cleared, or somebody has removed it: put it back, or delete the key and enrol anew",
			keystore.ErrKeyLost, err, uint32(handle))
	}
	if err != nil {
		return nil, fmt.Errorf("read the parent at 0x%08x: %w", uint32(handle), err)
	}
	return newParent(handle, rsp.OutPublic)
}

// newParent computes the Name itself: what the TPM says would let whoever sits
// on the bus claim any.
func newParent(handle tpm2.TPMHandle, public tpm2.TPM2BPublic) (*parent, error) {
	contents, err := public.Contents()
	if err != nil {
		return nil, fmt.Errorf("%w: public area of the parent: %w", errGarbled, err)
	}
	name, err := tpm2.ObjectName(contents)
	if err != nil {
		return nil, fmt.Errorf("%w: public area of the parent: %w", errGarbled, err)
	}
	return &parent{
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
