// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto"
	"slices"
)

// Description is what a key's file says about the key.
type Description struct {
	File      string // path
	Algorithm string // JWS: "ES256" or "ES384"
	Public    crypto.PublicKey

	// PIN: the key signs only with its PIN. Files made by tpm2-tools up to 5.7 may say
	// the opposite of the truth.
	PIN bool
	// NoDA: neither do wrong PINs for the key count toward the TPM's lockout nor
	// does a lockout stop the key (the attribute of that name, TPM 2.0 Part 2).
	NoDA bool
	// PCRs are those that the key is bound to, in ascending order.
	PCRs []int
	// Imported: the key was made outside of the TPM, and whoever made it has had
	// it (it has neither fixedTPM nor sensitiveDataOrigin).
	Imported bool
	// Duplicable: the key need not stay in this TPM, and may have been elsewhere (it
	// is not fixedTPM), as every imported one. An attester refuses it.
	Duplicable bool

	Handle uint32 // where Persist has put the key; 0: nowhere
	// Parent is the handle of what the key is wrapped with: 0x40000001 for the
	// storage root key of the owner hierarchy, or that of a persistent key.
	Parent uint32
	// ParentName is the parent's Name: if the TPM has another one there, the key
	// is lost; compare StorageRootKey.Name. nil in a file that was made by
	// another program and not opened yet.
	ParentName []byte

	// Damaged are the types of what else is in the file as PEM, such as "CERTIFICATE",
	// and is torn or damaged. It is left as it is, and the key works all the same.
	Damaged []string
}

// Describe reads a key's file. It sends no command, so it does not tell whether the TPM
// can still use the key. Store.Open does. Errors are those of [Store.Open] that the file
// can cause.
func (s *Store) Describe(ctx context.Context, name string) (Description, error) {
	if err := s.check(ctx, name); err != nil {
		return Description{}, err
	}
	k, err := s.folder.load(name)
	if err != nil {
		return Description{}, err
	}
	k = s.pinnedAs(k)
	area := k.Public // a copy, since Contents changes what it is called on
	public, err := area.Contents()
	if err != nil {
		return Description{}, err // it was parsed before
	}
	return Description{
		File:       s.folder.File(name),
		Algorithm:  k.JWS,
		Public:     k.ECDSA,
		PIN:        k.NeedsPIN(),
		NoDA:       k.NoDA,
		PCRs:       k.Policy.PCRs(),
		Imported:   !public.ObjectAttributes.FixedTPM && !public.ObjectAttributes.SensitiveDataOrigin,
		Duplicable: !public.ObjectAttributes.FixedTPM,
		Handle:     uint32(k.Handle),
		Parent:     uint32(k.Parent.Handle),
		ParentName: slices.Clone(k.Parent.Name),
		Damaged:    k.Damaged(),
	}, nil
}
