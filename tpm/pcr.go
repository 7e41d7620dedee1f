// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/instancekey/instancekey/keystore"
)

// pcrsAtOnce is how many values one TPM2_PCR_Read returns (TPML_DIGEST).
const pcrsAtOnce = 8

// checkPCRs refuses what is no PCR.
func checkPCRs(pcrs []int) error {
	for i, pcr := range pcrs {
		if pcr < 0 || pcr > 23 {
			return fmt.Errorf("tpm: there is no PCR %d: use 0 to 23", pcr)
		}
		if slices.Contains(pcrs[:i], pcr) {
			return fmt.Errorf("tpm: PCR %d is given twice", pcr)
		}
	}
	return nil
}

// readPCRs returns the values of PCRs of the SHA-256 bank. Both ascend by PCR.
func (c *call) readPCRs(pcrs []int) ([][]byte, error) {
	var values [][]byte
	for chunk := range slices.Chunk(pcrs, pcrsAtOnce) {
		digests, err := c.readPCRsAtOnce(chunk)
		if err != nil {
			return nil, fmt.Errorf("read PCRs %d: %w", chunk, err)
		}
		if len(digests) != len(chunk) {
			return nil, fmt.Errorf("%w: the TPM does not have all of the SHA-256 PCRs %d: activate its SHA-256 bank in the firmware setup", keystore.ErrUnavailable, chunk)
		}
		for _, digest := range digests {
			if len(digest) != sha256.Size {
				return nil, fmt.Errorf("%w: TPM2_PCR_Read: a value of %d bytes", errGarbled, len(digest))
			}
			values = append(values, digest)
		}
	}
	return values, nil
}

// readPCRsAtOnce sends TPM2_PCR_Read, which may leave some out.
func (c *call) readPCRsAtOnce(pcrs []int) ([]cryptobyte.String, error) {
	response, err := query(c, tpm2.TPMCCPCRRead, tpm2.Marshal(selectPCRs(pcrs)))
	if err != nil {
		return nil, err
	}
	var selections uint32
	ok := response.Skip(4) && response.ReadUint32(&selections) // the counter of updates comes first
	for range selections {
		var octets uint8
		if ok = ok && response.Skip(2) && response.ReadUint8(&octets) && response.Skip(int(octets)); !ok { // TPMS_PCR_SELECTION
			break
		}
	}
	if !ok {
		return nil, unread("TPM2_PCR_Read")
	}
	var number uint32
	if !response.ReadUint32(&number) || number > pcrsAtOnce {
		return nil, unread("TPM2_PCR_Read")
	}
	digests := make([]cryptobyte.String, number)
	for i := range digests {
		if !response.ReadUint16LengthPrefixed(&digests[i]) {
			return nil, unread("TPM2_PCR_Read")
		}
	}
	return digests, nil
}

func selectPCRs(pcrs []int) tpm2.TPMLPCRSelection {
	selected := make([]uint, len(pcrs))
	for i, pcr := range pcrs {
		selected[i] = uint(pcr)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash:      tpm2.TPMAlgSHA256,
		PCRSelect: tpm2.PCClientCompatible.PCRs(selected...),
	}}}
}
