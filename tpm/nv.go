// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// maxNV is the size of an NV index that is read. Certificates of endorsement
// keys have 1 to 2 kB.
const maxNV = 8 << 10

// maxIndexes is how many NV indexes of a range are looked at: more than the
// range of endorsement keys has.
const maxIndexes = 512

// indexes returns the NV indexes that there are from first to last, ascending.
func (c *call) indexes(first, last tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	var found []tpm2.TPMHandle
	for len(found) < maxIndexes {
		list, err := c.handles(first)
		if err != nil {
			return nil, fmt.Errorf("list the NV indexes: %w", err)
		}
		for _, index := range list {
			if index < first || index > last {
				return found, nil // the next range, or nonsense
			}
			found, first = append(found, index), index+1
		}
		if len(list) < maxListed {
			return found, nil
		}
	}
	return found, nil
}

// readNV returns the contents of an NV index, or nil if it is not there, was
// never written or cannot be read with an empty password or the owner's. An empty
// password that the TPM would count as a wrong try is not tried.
func (c *call) readNV(index tpm2.TPMHandle) ([]byte, error) {
	response, err := query(c, tpm2.TPMCCNVReadPublic, appendHandle(nil, index))
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var area cryptobyte.String
	if !response.ReadUint16LengthPrefixed(&area) {
		return nil, unread("TPM2_NV_ReadPublic")
	}
	public, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](area)
	if err != nil {
		return nil, fmt.Errorf("%w: its public area: %w", errGarbled, err)
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return nil, fmt.Errorf("%w: its public area: %w", errGarbled, err)
	}
	byIndex, byOwner := public.Attributes.AuthRead && public.Attributes.NoDA, public.Attributes.OwnerRead
	if !byIndex && !byOwner || !public.Attributes.Written || public.Attributes.ReadLocked || public.DataSize > maxNV {
		return nil, nil
	}
	most, err := c.property(tpm2.TPMPTNVBufferMax)
	if err != nil {
		return nil, err
	}
	named := tpm2.NamedHandle{Handle: index, Name: *name}
	var content []byte
	if byIndex {
		content, err = c.readNVBy(named, true, int(most), int(public.DataSize))
		if !isRefusal(err) {
			return content, err
		}
	}
	if byOwner {
		return c.readNVBy(named, false, int(most), int(public.DataSize))
	}
	return nil, nil
}

// readNVBy reads size bytes, as many at once as the TPM gives, authorized by the index
// or by the owner.
func (c *call) readNVBy(index tpm2.NamedHandle, byIndex bool, most, size int) (content []byte, err error) {
	for len(content) < size {
		part, err := c.readNVPart(index, byIndex, min(most, maxMessage/2, size-len(content)), len(content))
		if err != nil {
			return nil, err
		}
		content = append(content, part...)
	}
	return content, nil
}

// readNVPart sends TPM2_NV_Read.
func (c *call) readNVPart(index tpm2.NamedHandle, byIndex bool, size, offset int) ([]byte, error) {
	authorizer, auth := index, tpm2.PasswordAuth(nil)
	if !byIndex {
		var done func()
		var err error
		if auth, done, err = c.hierarchyAuthorization(c.ownerAuth); err != nil {
			return nil, err
		}
		defer done()
		authorizer = tpm2.NamedHandle{Handle: tpm2.TPMRHOwner, Name: nameOf(tpm2.TPMRHOwner)}
	}
	response, err := c.authorized(tpm2.TPMCCNVRead, []tpm2.TPMHandle{authorizer.Handle, index.Handle}, []tpm2.TPM2BName{authorizer.Name, index.Name},
		auth, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(size)), uint16(offset)))
	if err != nil && !byIndex {
		return nil, about(theOwner, err)
	}
	if err != nil {
		return nil, err
	}
	var part cryptobyte.String
	if !response.ReadUint16LengthPrefixed(&part) || !response.Empty() {
		return nil, unread("TPM2_NV_Read")
	}
	if size == 0 || len(part) != size {
		return nil, fmt.Errorf("%w: %d of %d bytes were read", errGarbled, len(part), size)
	}
	return part, nil
}
