package tpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// satisfy runs a policy's commands in a session: before every signature, since
// a signature sets the session back.
func (c *call) satisfy(policy keyfile.Policy, session tpm2.TPMHandle) error {
	for _, step := range policy {
		var err error
		switch step := step.(type) {
		case tpm2.PolicyPCR:
			step.PolicySession = session
			_, err = step.Execute(c)
			if errors.Is(err, tpm2.TPMRCValue) { // the digest differs
				err = fmt.Errorf("%w: %w: the device has booted something else than the key is bound to: boot that again, or enrol with a new key", keystore.ErrPolicy, err)
			}
		case tpm2.PolicyAuthValue:
			step.PolicySession = session
			_, err = step.Execute(c)
		}
		if err != nil {
			return fmt.Errorf("satisfy the key's policy: %w", err)
		}
	}
	return nil
}

// bindPCRs returns the policy that the selected PCRs of the SHA-256 bank have
// the values that they have now.
func (c *call) bindPCRs(pcrs []int) (keyfile.PolicyStep, error) {
	pcrs = slices.Sorted(slices.Values(pcrs))
	values, err := c.readPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(slices.Concat(values...))
	return tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}, Pcrs: selectPCRs(pcrs)}, nil
}
