// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/go-tpm/tpm2"
)

// checkQuote verifies that PCRs had the values that come with the quote when
// the TPM of the attestation key quoted them, and returns these. The PCRs must
// be those wanted, no fewer and no others, of the SHA-256 bank.
func checkQuote(q *quote, ak crypto.PublicKey, binding []byte, wanted []int, certified *tpm2.TPMSAttest) (map[int][]byte, error) {
	if q.HashAlg != int(tpm2.TPMAlgSHA256) {
		return nil, fmt.Errorf("is of the bank 0x%x, not SHA-256", q.HashAlg)
	}
	attest, err := checkAttest(ak, tpm2.TPMSTAttestQuote, q.Quoted, q.Signature, binding)
	if err != nil {
		return nil, err
	}
	// Between the two statements the device might have booted something else.
	if a, b := attest.ClockInfo, certified.ClockInfo; a.ResetCount != b.ResetCount || a.RestartCount != b.RestartCount {
		return nil, errors.New("is from another boot than certInfo: resetCount or restartCount differ")
	}
	quoted, err := attest.Attested.Quote()
	if err != nil {
		return nil, err
	}
	selected, err := selectedPCRs(quoted.PCRSelect)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(selected, wanted) {
		return nil, fmt.Errorf("is over the PCRs %v, not %v", selected, wanted)
	}
	values, err := readPCRs(q.PCRs, wanted)
	if err != nil {
		return nil, err
	}
	digest := sha256.New()
	for _, index := range wanted {
		digest.Write(values[index])
	}
	if !bytes.Equal(digest.Sum(nil), quoted.PCRDigest.Buffer) {
		return nil, errors.New("is not over these pcrValues")
	}
	return values, nil
}

// selectedPCRs returns the PCRs of a selection, in ascending order.
func selectedPCRs(selection tpm2.TPMLPCRSelection) ([]int, error) {
	if len(selection.PCRSelections) != 1 || selection.PCRSelections[0].Hash != tpm2.TPMAlgSHA256 {
		return nil, errors.New("is not over the SHA-256 bank alone")
	}
	var selected []int
	for octet, bits := range selection.PCRSelections[0].PCRSelect {
		for bit := range 8 {
			if bits>>bit&1 == 1 {
				selected = append(selected, 8*octet+bit)
			}
		}
	}
	return selected, nil
}

func readPCRs(text map[string][]byte, wanted []int) (map[int][]byte, error) {
	if len(text) != len(wanted) {
		return nil, fmt.Errorf("comes with %d pcrValues, not %d", len(text), len(wanted))
	}
	values := make(map[int][]byte, len(wanted))
	for _, index := range wanted {
		value := text[strconv.Itoa(index)]
		if len(value) != sha256.Size {
			return nil, fmt.Errorf("pcrValues has no SHA-256 value for PCR %d", index)
		}
		values[index] = value
	}
	return values, nil
}
