// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// policyPatience is how long a policy is begun anew while PCRs are extended.
const policyPatience = 10 * time.Second

// policyCommands encodes a policy's commands for a session.
func policyCommands(policy keyfile.Policy, session tpm2.TPMHandle) (commands [][]byte) {
	for _, step := range policy {
		body := binary.BigEndian.AppendUint32(nil, uint32(session))
		switch step := step.(type) {
		case tpm2.PolicyPCR:
			body = appendSized(body, step.PcrDigest.Buffer)
			body = append(body, tpm2.Marshal(step.Pcrs)...)
			commands = append(commands, newCommand(tpm2.TPMSTNoSessions, tpm2.TPMCCPolicyPCR, body))
		case tpm2.PolicyAuthValue:
			commands = append(commands, newCommand(tpm2.TPMSTNoSessions, tpm2.TPMCCPolicyAuthValue, body))
		}
	}
	return commands
}

// satisfy sends a policy's commands: before every signature, since a signature sets
// the session back.
func (c *call) satisfy(commands [][]byte) error {
	for _, command := range commands {
		err := c.sendPlain(command)
		if errors.Is(err, tpm2.TPMRCValue) { // the PCRs' digest differs
			err = fmt.Errorf("%w: %w: the device has booted something else than the key is bound to: boot that again, or enrol with a new key", keystore.ErrPolicy, err)
		}
		if err != nil {
			return fmt.Errorf("satisfy the key's policy: %w", err)
		}
	}
	return nil
}

// sendPlain sends a command whose answer has nothing in it but the response code.
func (c *call) sendPlain(command []byte) error {
	answer, err := c.Send(command)
	switch {
	case err != nil:
		return err
	case responseCode(answer) != tpm2.TPMRCSuccess:
		return responseCode(answer)
	case len(answer) != headerSize:
		return fmt.Errorf("%w: %d bytes where none are due", errGarbled, len(answer)-headerSize)
	}
	return nil
}

// policyRetry decides whether to begin a policy anew. Any PCR that is extended, also
// one that the policy does not name, ends what a session has done so far
// (TPM_RC_PCR_CHANGED), and Linux's IMA extends one for each file that it measures.
type policyRetry struct {
	*call
	began time.Time // zero: with the first error
	wait  time.Duration
}

// after sets the session back where err says that a PCR was extended. Otherwise, or if
// that goes on for policyPatience, it returns err.
func (r *policyRetry) after(err error, session tpm2.TPMHandle) error {
	if !errors.Is(err, tpm2.TPMRCPCRChanged) || tpm2.TPMHT(session>>24) != tpm2.TPMHTPolicySession {
		return err
	}
	if r.began.IsZero() {
		r.began = time.Now()
	}
	if time.Since(r.began) >= policyPatience {
		return err
	}
	if err := sleep(r.ctx, r.wait); err != nil {
		return err
	}
	r.wait = min(max(2*r.wait, time.Millisecond), 20*time.Millisecond)
	return r.restartPolicy(session)
}

// restartPolicy sends TPM2_PolicyRestart, which go-tpm does not have.
func (c *call) restartPolicy(session tpm2.TPMHandle) error {
	handle := binary.BigEndian.AppendUint32(nil, uint32(session))
	if err := c.sendPlain(newCommand(tpm2.TPMSTNoSessions, tpm2.TPMCCPolicyRestart, handle)); err != nil {
		return fmt.Errorf("TPM2_PolicyRestart: %w", err)
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
