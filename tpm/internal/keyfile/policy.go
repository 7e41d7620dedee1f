// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	formats "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// policyPassword is TPM_CC_PolicyPassword. In a policy digest it is the same as
// TPM_CC_PolicyAuthValue, which shows the PIN to nobody.
const policyPassword = tpm2.TPMCC(0x18C)

// Policy is what has to be asserted before a key can be used, in this order. A
// step is a tpm2.PolicyPCR or a tpm2.PolicyAuthValue.
type Policy []PolicyStep

// PolicyStep is one assertion of a Policy.
type PolicyStep interface {
	Update(*tpm2.PolicyCalculator) error
}

// parsePolicy reads the policy of a TSS2 key file: commands with their
// parameters, without the session handle.
func parsePolicy(policy []*formats.TPMPolicy) (Policy, error) {
	var steps Policy
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
			return nil, fmt.Errorf("%w: %w: the key's policy has the command 0x%x: only TPM2_PolicyPCR, TPM2_PolicyAuthValue and TPM2_PolicyPassword are known here", keystore.ErrPolicy, errors.ErrUnsupported, uint32(code))
		}
	}
	return steps, nil
}

// parsePolicyPCR reads a selection and, without its size, the digest: not the
// order of TPM2_PolicyPCR, but that of the programs that write such files.
func parsePolicyPCR(parameters []byte) (PolicyStep, error) {
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

// marshal is the inverse of parsePolicy.
func (p Policy) marshal() []*formats.TPMPolicy {
	var policy []*formats.TPMPolicy
	for _, step := range p {
		switch step := step.(type) {
		case tpm2.PolicyPCR:
			policy = append(policy, &formats.TPMPolicy{CommandCode: int(tpm2.TPMCCPolicyPCR), CommandPolicy: marshalPolicyPCR(step)})
		case tpm2.PolicyAuthValue:
			policy = append(policy, &formats.TPMPolicy{CommandCode: int(tpm2.TPMCCPolicyAuthValue)})
		}
	}
	return policy
}

// Digest returns the digest that the TPM compares with what a session has done.
func (p Policy) Digest(alg tpm2.TPMIAlgHash) ([]byte, error) {
	calculator, err := tpm2.NewPolicyCalculator(alg)
	if err != nil {
		return nil, err
	}
	for _, step := range p {
		if err := step.Update(calculator); err != nil {
			return nil, err
		}
	}
	return calculator.Hash().Digest, nil
}

// HasAuthValue reports whether the key's PIN is to be given.
func (p Policy) HasAuthValue() bool {
	return slices.ContainsFunc(p, func(step PolicyStep) bool {
		_, ok := step.(tpm2.PolicyAuthValue)
		return ok
	})
}

// PCRs returns the PCRs in the policy, of whatever bank, in ascending order.
func (p Policy) PCRs() []int {
	var pcrs []int
	for _, step := range p {
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
