// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// Import takes a key that was made elsewhere and wrapped for this TPM's storage root key:
// a TSS2 PEM "importable key", as a Client Attester provisions it. From then on the key
// has a file like any other key, and never leaves this TPM in the clear. But whoever made
// the key has also held it. Such a key cannot have the attributes fixedTPM and
// fixedParent, so an attester can tell it apart.
//
// The error matches keystore.ErrExists if the name is taken, keystore.ErrCorrupt if pem
// is no importable key, keystore.ErrUnavailable with [errors.ErrUnsupported] if the key
// cannot sign ES256 or ES384, and keystore.ErrKeyLost if it was wrapped for another TPM.
// Nothing is written then.
func (s *Store) Import(ctx context.Context, name string, pem []byte) (keystore.Key, error) {
	doing := fmt.Sprintf("import key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	wrapped, err := keyfile.Parse(pem)
	if err == nil && !wrapped.Importable {
		err = fmt.Errorf("%w: the file is a loadable key: put it in the folder as it is", keystore.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: %s: %w", doing, err)
	}
	if err := s.folder.Vacant(name); err != nil {
		return nil, err
	}
	k, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) { return c.importKey(wrapped) })
	if err != nil {
		return nil, explain(doing, err)
	}
	if !k.EmptyAuth { // it may have a PIN, also with noDA
		err = checkPinned(k.Parent.Name, s.folder.pins().names(k.Parent))
	}
	if err != nil {
		err = explain(doing, err)
	} else {
		err = s.folder.Create(name, k.Text)
	}
	if err != nil {
		s.forget(ctx, k)
		return nil, err
	}
	return newKey(s, name, k, false), nil
}

// importKey sends TPM2_Import and loads the key, to see that it can be.
func (c *call) importKey(wrapped *keyfile.File) (*keyfile.File, error) {
	c.makeRoom()
	p, err := c.loadParent(wrapped.Parent)
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	var rsp *tpm2.ImportResponse
	err = p.use(c, "TPM2_Import", func() (err error) {
		rsp, err = tpm2.Import{
			ParentHandle: p.AuthHandle,
			ObjectPublic: wrapped.Public,
			Duplicate:    wrapped.Private,
			InSymSeed:    wrapped.Secret,
			Symmetric:    tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(c)
		return err
	})
	if errors.Is(err, tpm2.TPMRCIntegrity) {
		return nil, fmt.Errorf("%w: %w: the key was wrapped for another TPM, or this one has been cleared since: have it wrapped for the storage root key %x", keystore.ErrKeyLost, err, p.Name.Buffer)
	}
	if err != nil {
		return nil, damaged(err)
	}
	parent := wrapped.Parent
	parent.Name = p.Name.Buffer
	k, err := keyfile.New(parent, wrapped.Public, rsp.OutPrivate, wrapped.EmptyAuth, wrapped.Policy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGarbled, err)
	}
	return k, c.loadUnder(p, k)
}
