// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

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
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selectPCRs(chunk)}.Execute(c)
		if err != nil {
			return nil, fmt.Errorf("read PCRs %d: %w", chunk, err)
		}
		if len(rsp.PCRValues.Digests) != len(chunk) {
			return nil, fmt.Errorf("%w: the TPM does not have all of the SHA-256 PCRs %d: activate its SHA-256 bank in the firmware setup", keystore.ErrUnavailable, chunk)
		}
		for _, digest := range rsp.PCRValues.Digests {
			if len(digest.Buffer) != sha256.Size {
				return nil, fmt.Errorf("%w: TPM2_PCR_Read: a value of %d bytes", errGarbled, len(digest.Buffer))
			}
			values = append(values, digest.Buffer)
		}
	}
	return values, nil
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
