package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// policyPassword is TPM_CC_PolicyPassword. In a policy digest it is the same as
// TPM_CC_PolicyAuthValue, which shows the PIN to nobody.
const policyPassword = tpm2.TPMCC(0x18C)

// policyStep is one assertion of a key's policy: a PolicyPCR or a
// PolicyAuthValue.
type policyStep interface {
	Update(*tpm2.PolicyCalculator) error
}

// parsePolicy reads the policy of a TSS2 key file: commands with their
// parameters, without the session handle.
func parsePolicy(policy []*keyfile.TPMPolicy) ([]policyStep, error) {
	var steps []policyStep
	for _, p := range policy {
		switch code := tpm2.TPMCC(p.CommandCode); code {
		case tpm2.TPMCCPolicyPCR:
			step, err := parsePolicyPCR(p.CommandPolicy)
			if err != nil {
				return nil, fmt.Errorf("%w: parameters of TPM2_PolicyPCR: %w", keystore.ErrCorrupt, err)
			}
			steps = append(steps, step)
		case tpm2.TPMCCPolicyAuthValue, policyPassword:
			steps = append(steps, tpm2.PolicyAuthValue{})
		default:
			return nil, fmt.Errorf("%w: the key's policy has the command 0x%x: only TPM2_PolicyPCR, TPM2_PolicyAuthValue and TPM2_PolicyPassword are known here", keystore.ErrPolicy, uint32(code))
		}
	}
	return steps, nil
}

// parsePolicyPCR reads a selection and, without its size, the digest: not the
// order of TPM2_PolicyPCR, but that of the programs that write such files.
func parsePolicyPCR(parameters []byte) (policyStep, error) {
	selection, err := tpm2.Unmarshal[tpm2.TPMLPCRSelection](parameters)
	if err != nil {
		return nil, err
	}
	octets := tpm2.Marshal(*selection)
	digest, ok := bytes.CutPrefix(parameters, octets)
	if !ok {
		return nil, errors.New("not in their canonical form")
	}
	return tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest}, Pcrs: *selection}, nil
}

func marshalPolicyPCR(p tpm2.PolicyPCR) []byte {
	return append(tpm2.Marshal(p.Pcrs), p.PcrDigest.Buffer...)
}

// marshalPolicy is the inverse of parsePolicy.
func marshalPolicy(steps []policyStep) []*keyfile.TPMPolicy {
	var policy []*keyfile.TPMPolicy
	for _, step := range steps {
		switch step := step.(type) {
		case tpm2.PolicyPCR:
			policy = append(policy, &keyfile.TPMPolicy{CommandCode: int(tpm2.TPMCCPolicyPCR), CommandPolicy: marshalPolicyPCR(step)})
		case tpm2.PolicyAuthValue:
			policy = append(policy, &keyfile.TPMPolicy{CommandCode: int(tpm2.TPMCCPolicyAuthValue)})
		}
	}
	return policy
}

// policyDigest is the digest that the TPM compares with what a session has done.
func policyDigest(steps []policyStep, alg tpm2.TPMIAlgHash) ([]byte, error) {
	calculator, err := tpm2.NewPolicyCalculator(alg)
	if err != nil {
		return nil, err
	}
	for _, step := range steps {
		if err := step.Update(calculator); err != nil {
			return nil, err
		}
	}
	return calculator.Hash().Digest, nil
}

func hasAuthValue(steps []policyStep) bool {
	return slices.ContainsFunc(steps, func(step policyStep) bool {
		_, ok := step.(tpm2.PolicyAuthValue)
		return ok
	})
}

// satisfy runs a policy's commands in a session: before every signature, since
// a signature sets the session back.
func (c *call) satisfy(steps []policyStep, session tpm2.TPMHandle) error {
	for _, step := range steps {
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
func (c *call) bindPCRs(pcrs []int) (policyStep, error) {
	pcrs = slices.Sorted(slices.Values(pcrs))
	values, err := c.readPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(slices.Concat(values...))
	return tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}, Pcrs: selectPCRs(pcrs)}, nil
}
