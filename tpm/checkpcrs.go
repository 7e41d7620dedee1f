// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// CheckPCRs reports whether the PCRs that a key is bound to have the values that
// it needs. It signs nothing and asks for no PIN, so that a technician's tool can
// examine a key whose PIN it does not know. It costs three commands, and four for a key
// that has a PIN, too. No wrong try is counted.
//
// The error is nil also for a key that is bound to no PCRs. It matches
// keystore.ErrPolicy if the device has booted something else; other errors are
// those of [Store.Open] that the file can cause, and of the TPM.
func (s *Store) CheckPCRs(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	k, err := s.folder.load(name)
	if err != nil {
		return err
	}
	if len(k.Policy.PCRs()) == 0 {
		return nil
	}
	_, err = run(ctx, s.device, func(c *call) (struct{}, error) { return struct{}{}, c.checkPCRs(k) })
	return explain(fmt.Sprintf("check the PCRs of key %q", name), err)
}

// checkPCRs sends the commands of the key's policy in a session of their own. The
// session ends afterwards: the next use of the key begins its policy anew.
func (c *call) checkPCRs(k *keyfile.File) error {
	handle, err := c.startCheck(k)
	if err != nil {
		return err
	}
	defer c.flush(handle)
	retry := policyRetry{call: c}
	for {
		err := c.satisfy(policyCommands(k.Policy, handle))
		if err == nil {
			return nil
		}
		if err := retry.after(err, handle); err != nil {
			return err
		}
	}
}

func (c *call) startCheck(k *keyfile.File) (tpm2.TPMHandle, error) {
	if err := checkFIPS("the sessions that keys with a PIN, or bound to PCRs, are used by", 0); err != nil {
		return 0, err
	}
	session, _, err := tpm2.PolicySession(c, k.NameAlg, nonceSize)
	if err != nil {
		return 0, err
	}
	return session.Handle(), c.adopt(session.Handle())
}
