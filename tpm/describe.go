package tpm

import (
	"context"
	"crypto"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Description is what a key's file says about the key.
type Description struct {
	File      string // path
	Algorithm string // JWS: "ES256" or "ES384"
	Public    crypto.PublicKey

	// PIN: the key signs only with its PIN. Files made by tpm2-tools 5.4 may say
	// the opposite of the truth.
	PIN bool
	// NoDA: neither do wrong PINs for the key count toward the TPM's lockout nor
	// does a lockout stop the key (the attribute of that name, TPM 2.0 Part 2).
	NoDA bool
	// PCRs are those that the key is bound to, in ascending order.
	PCRs []int
	// Imported: the key was made outside of the TPM, and whoever made it has had
	// it (it is not fixedTPM).
	Imported bool

	Handle uint32 // where Persist has put the key; 0: nowhere
	// Parent is the handle of what the key is wrapped with: 0x40000001 for the
	// storage root key of the owner hierarchy, or that of a persistent key.
	Parent uint32
	// ParentName is the parent's Name: if the TPM has another one there, the key
	// is lost; compare StorageRootKey.Name. nil in a file that was made by
	// another program and not opened yet.
	ParentName []byte
}

// Describe reads a key's file. It sends no command, so that it does not tell
// whether the TPM still takes the key, as Open does. Errors are those of
// [Store.Open] that the file can cause.
func (s *Store) Describe(ctx context.Context, name string) (Description, error) {
	if err := s.check(ctx, name); err != nil {
		return Description{}, err
	}
	k, err := s.folder.load(name)
	if err != nil {
		return Description{}, err
	}
	area := k.public // a copy, since Contents changes what it is called on
	public, err := area.Contents()
	if err != nil {
		return Description{}, err // it was parsed before
	}
	return Description{
		File:       s.folder.File(name),
		Algorithm:  k.jws,
		Public:     k.ecdsa,
		PIN:        k.needsPIN(),
		NoDA:       k.noDA,
		PCRs:       boundPCRs(k.policy),
		Imported:   !public.ObjectAttributes.FixedTPM,
		Handle:     uint32(k.handle),
		Parent:     uint32(k.parent),
		ParentName: slices.Clone(k.parentName),
	}, nil
}

// boundPCRs returns the PCRs in a policy, of whatever bank.
func boundPCRs(steps []policyStep) []int {
	var pcrs []int
	for _, step := range steps {
		bound, ok := step.(tpm2.PolicyPCR)
		if !ok {
			continue
		}
		for _, bank := range bound.Pcrs.PCRSelections {
			for i := range 8 * len(bank.PCRSelect) {
				if bank.PCRSelect[i/8]&(1<<(i%8)) != 0 {
					pcrs = append(pcrs, i)
				}
			}
		}
	}
	slices.Sort(pcrs)
	return slices.Compact(pcrs)
}
