// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxCredential is more than a challenge of credential protection has, in either
// of its parts: 512 bytes, with an RSA-4096 endorsement key.
const maxCredential = 1024

// Activate implements [keystore.AttestableKey]. An error without a sentinel says
// that the challenge was not made for this device's endorsement key and
// attestation key.
func (k *key) Activate(ctx context.Context, credential, secret []byte) ([]byte, error) {
	const doing = "activate the attestation key's credential"
	if len(credential) > maxCredential || len(secret) > maxCredential {
		return nil, fmt.Errorf("tpm: %s: the challenge is too long", doing)
	}
	activated, err := run(ctx, k.store.device, func(c *call) ([]byte, error) {
		return c.activate(credential, secret, &k.store.config)
	})
	var code tpm2.TPMFmt1Error
	if errors.As(err, &code) {
		if ofParameter, _ := code.Parameter(); ofParameter {
			return nil, fmt.Errorf("tpm: %s: the challenge was not made for this TPM's keys: %w", doing, err)
		}
	}
	return activated, explain(doing, err)
}

// activate needs the slots of two objects, the endorsement key and the
// attestation key.
func (c *call) activate(credential, secret []byte, cfg *Config) ([]byte, error) {
	c.clearOut()
	endorsementAuth := cfg.EndorsementAuth
	found, err := c.findEK(cfg)
	if err != nil {
		return nil, err
	}
	ek, err := c.loadEK(found, endorsementAuth)
	if err != nil {
		return nil, err
	}
	defer c.release(ek)
	ak, err := c.makeAttestationKey(endorsementAuth)
	if err != nil {
		return nil, err
	}
	defer c.release(ak)
	done, err := c.authorizeEK(ek, endorsementAuth)
	if err != nil {
		return nil, err
	}
	defer done()
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: ak.AuthHandle,
		KeyHandle:      ek.AuthHandle,
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("TPM2_ActivateCredential: %w", err)
	}
	if len(rsp.CertInfo.Buffer) == 0 {
		return nil, fmt.Errorf("%w: TPM2_ActivateCredential: nothing in it", errGarbled)
	}
	return rsp.CertInfo.Buffer, nil
}

// authorizeEK opens the session that ek is used with, if it needs one: keys of
// the low range have the policy that the endorsement hierarchy's password is
// known, PolicyA of the TCG EK Credential Profile. done ends the session.
func (c *call) authorizeEK(ek *object, endorsementAuth []byte) (done func(), err error) {
	if ek.public.ObjectAttributes.UserWithAuth {
		return func() {}, nil // the empty password of every parent
	}
	if err := checkFIPS("the session that the endorsement key is used by", 0); err != nil {
		return nil, err
	}
	session, _, err := tpm2.PolicySession(c, ek.public.NameAlg, nonceSize)
	if err == nil {
		err = c.adopt(session.Handle())
	}
	if err != nil {
		return nil, fmt.Errorf("open a session for the endorsement key: %w", err)
	}
	handle := session.Handle()
	if err := c.satisfyPolicyA(handle, endorsementAuth); err != nil {
		c.flush(handle)
		return nil, err
	}
	ek.Auth = session
	return func() { c.flush(handle) }, nil
}

func (c *call) satisfyPolicyA(session tpm2.TPMHandle, endorsementAuth []byte) error {
	auth, done, err := c.hierarchyAuthorization(endorsementAuth)
	if err != nil {
		return err
	}
	defer done()
	const empty = 2 + 2 + 2 + 4 // nonceTPM, cpHashA, policyRef, expiration
	_, err = c.authorized(tpm2.TPMCCPolicySecret, []tpm2.TPMHandle{tpm2.TPMRHEndorsement, session},
		[]tpm2.TPM2BName{nameOf(tpm2.TPMRHEndorsement), nameOf(session)}, auth, make([]byte, empty))
	if err != nil {
		return about(theEndorsement, fmt.Errorf("TPM2_PolicySecret: %w", err))
	}
	return nil
}
