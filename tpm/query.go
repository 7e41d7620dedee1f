// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/crypto/cryptobyte"
)

// query sends a command that takes no authorization: handles and parameters. It returns
// what follows the header of the response.
//
// go-tpm compiles 18 KiB for each of its commands, sessions and all. For those without one
// there are its structures, which are used here, and nothing else.
func query(to transport.TPM, code tpm2.TPMCC, body []byte) (cryptobyte.String, error) {
	response, err := to.Send(newCommand(tpm2.TPMSTNoSessions, code, body))
	if err != nil {
		return nil, err
	}
	if len(response) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes", errGarbled, len(response))
	}
	if code := responseCode(response); code != tpm2.TPMRCSuccess {
		return nil, code
	}
	return response[headerSize:], nil
}

// unread is the error of a response that is not what the command's is.
func unread(command string) error { return fmt.Errorf("%w: %s: it is cut off", errGarbled, command) }

func appendHandle(to []byte, handle tpm2.TPMHandle) []byte {
	return binary.BigEndian.AppendUint32(to, uint32(handle))
}

// readPublic sends TPM2_ReadPublic. It also returns the Name as the TPM has it.
func (c *call) readPublic(handle tpm2.TPMHandle) (public tpm2.TPM2BPublic, name []byte, err error) {
	response, err := query(c, tpm2.TPMCCReadPublic, appendHandle(nil, handle))
	if err != nil {
		return public, nil, err
	}
	var area, named cryptobyte.String
	if !response.ReadUint16LengthPrefixed(&area) || !response.ReadUint16LengthPrefixed(&named) {
		return public, nil, unread("TPM2_ReadPublic")
	}
	return tpm2.BytesAs2B[tpm2.TPMTPublic](area), named, nil
}

// saveContext sends TPM2_ContextSave, and returns a TPMS_CONTEXT; nil if there is nothing
// in it.
func (c *call) saveContext(handle tpm2.TPMHandle) ([]byte, error) {
	const fixed = 8 + 4 + 4 // sequence, saved handle, hierarchy
	context, err := query(c, tpm2.TPMCCContextSave, appendHandle(nil, handle))
	if err != nil {
		return nil, err
	}
	var blob cryptobyte.String
	if rest := context; !rest.Skip(fixed) || !rest.ReadUint16LengthPrefixed(&blob) || !rest.Empty() {
		return nil, unread("TPM2_ContextSave")
	}
	if len(blob) == 0 {
		return nil, nil
	}
	return context, nil
}

// loadContext sends TPM2_ContextLoad.
func (c *call) loadContext(context []byte) (tpm2.TPMHandle, error) {
	response, err := query(c, tpm2.TPMCCContextLoad, context)
	if err != nil {
		return 0, err
	}
	var handle uint32
	if !response.ReadUint32(&handle) {
		return 0, unread("TPM2_ContextLoad")
	}
	return tpm2.TPMHandle(handle), nil
}

// capabilityOf sends TPM2_GetCapability.
func capabilityOf(of transport.TPM, kind tpm2.TPMCap, first, most uint32) (*tpm2.TPMUCapabilities, error) {
	body := binary.BigEndian.AppendUint32(nil, uint32(kind))
	body = binary.BigEndian.AppendUint32(body, first)
	response, err := query(of, tpm2.TPMCCGetCapability, binary.BigEndian.AppendUint32(body, most))
	if err != nil {
		return nil, err
	}
	var more uint8
	if !response.ReadUint8(&more) {
		return nil, unread("TPM2_GetCapability")
	}
	data, err := tpm2.Unmarshal[tpm2.TPMSCapabilityData](response)
	if err != nil {
		return nil, fmt.Errorf("%w: TPM2_GetCapability: %w", errGarbled, err)
	}
	return &data.Data, nil
}
