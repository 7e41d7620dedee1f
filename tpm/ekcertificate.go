package tpm

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxNV is the size of an NV index that is read. Certificates of endorsement
// keys have 1 to 2 kB.
const maxNV = 8 << 10

// parseEKCertificate finds the certificate in the contents of an NV index. It
// returns nil if there is none.
func parseEKCertificate(content []byte) *x509.Certificate {
	certificate, err := x509.ParseCertificate(trimCertificate(content))
	if err != nil {
		return nil
	}
	return certificate
}

// trimCertificate returns the DER SEQUENCE in the contents of an NV index, which
// may be longer than what was written to it, and may begin with the header that
// TPM 1.2 had there (TCG PC Client Specific Implementation, section 7.3.2). It
// returns nil if there is none.
func trimCertificate(content []byte) []byte {
	if rest, found := bytes.CutPrefix(content, []byte{0x10, 0x01, 0x00}); found && len(rest) > 2 {
		if size := int(binary.BigEndian.Uint16(rest)); size <= len(rest)-2 {
			content = rest[2 : 2+size]
		}
	}
	var sequence asn1.RawValue
	_, err := asn1.Unmarshal(content, &sequence)
	if err != nil || sequence.Class != asn1.ClassUniversal || sequence.Tag != asn1.TagSequence || !sequence.IsCompound {
		return nil
	}
	return sequence.FullBytes
}

// readNV returns the contents of an NV index, or nil if it is not there, was
// never written or cannot be read with an empty password or the owner's.
func (c *call) readNV(index tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("%w: its public area: %w", errGarbled, err)
	}
	name, err := tpm2.NVName(public)
	if err != nil {
		return nil, fmt.Errorf("%w: its public area: %w", errGarbled, err)
	}
	readable := public.Attributes.AuthRead || public.Attributes.OwnerRead
	if !readable || !public.Attributes.Written || public.Attributes.ReadLocked || public.DataSize > maxNV {
		return nil, nil
	}
	most, err := c.property(tpm2.TPMPTNVBufferMax)
	if err != nil {
		return nil, err
	}
	named := tpm2.NamedHandle{Handle: index, Name: *name}
	var content []byte
	for len(content) < int(public.DataSize) {
		size := min(int(most), maxMessage/2, int(public.DataSize)-len(content))
		part, err := c.readNVPart(named, public.Attributes.AuthRead, size, len(content))
		if err != nil {
			return nil, err
		}
		content = append(content, part...)
	}
	return content, nil
}

// readNVPart sends TPM2_NV_Read, authorized by the index or by the owner.
func (c *call) readNVPart(index tpm2.NamedHandle, byIndex bool, size, offset int) ([]byte, error) {
	authorizer := tpm2.AuthHandle{Handle: index.Handle, Name: index.Name, Auth: tpm2.PasswordAuth(nil)}
	if !byIndex {
		auth, done, err := c.hierarchyAuthorization(c.ownerAuth)
		if err != nil {
			return nil, err
		}
		defer done()
		authorizer = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: auth}
	}
	rsp, err := tpm2.NVRead{AuthHandle: authorizer, NVIndex: index, Size: uint16(size), Offset: uint16(offset)}.Execute(c)
	if err != nil {
		return nil, err
	}
	if size == 0 || len(rsp.Data.Buffer) != size {
		return nil, fmt.Errorf("%w: %d of %d bytes were read", errGarbled, len(rsp.Data.Buffer), size)
	}
	return rsp.Data.Buffer, nil
}

// property returns one of the TPM's fixed properties.
func (c *call) property(property tpm2.TPMPT) (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(property), PropertyCount: 1}.Execute(c)
	if err != nil {
		return 0, err
	}
	properties, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(properties.TPMProperty) != 1 || properties.TPMProperty[0].Property != property {
		return 0, fmt.Errorf("%w: no property 0x%x", errGarbled, uint32(property))
	}
	return properties.TPMProperty[0].Value, nil
}
