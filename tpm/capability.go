// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxListed is how much of a list is asked for at once, more than is needed of
// each: the TPM gives as much of it as it has room for.
const maxListed = 64

// property returns one of the TPM's properties.
func (c *call) property(property tpm2.TPMPT) (uint32, error) {
	properties, err := c.properties(property)
	return properties[property], err
}

// properties returns a group of the TPM's properties, in which those needed must
// be. The first of these is where the group begins.
func (c *call) properties(needed ...tpm2.TPMPT) (map[tpm2.TPMPT]uint32, error) {
	rsp, err := c.capability(tpm2.TPMCapTPMProperties, uint32(needed[0]))
	if err != nil {
		return nil, err
	}
	list, err := rsp.TPMProperties()
	if err != nil {
		return nil, fmt.Errorf("%w: list of properties: %w", errGarbled, err)
	}
	properties := make(map[tpm2.TPMPT]uint32)
	for _, p := range list.TPMProperty {
		properties[p.Property] = p.Value
	}
	for _, p := range needed {
		if _, ok := properties[p]; !ok {
			return nil, fmt.Errorf("%w: no property 0x%x", errGarbled, uint32(p))
		}
	}
	return properties, nil
}

// handles returns the TPM's handles of first's kind, from first on.
func (c *call) handles(first tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	rsp, err := c.capability(tpm2.TPMCapHandles, uint32(first))
	if err != nil {
		return nil, err
	}
	list, err := rsp.Handles()
	if err != nil {
		return nil, fmt.Errorf("%w: list of handles: %w", errGarbled, err)
	}
	return list.Handle, nil
}

func (c *call) capability(kind tpm2.TPMCap, first uint32) (*tpm2.TPMUCapabilities, error) {
	return capabilityOf(c, kind, first, maxListed)
}
