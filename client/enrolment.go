// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// codeNotEnrolled is an attester's answer to evidence of an attestation key that
// it does not know, or no longer.
const codeNotEnrolled = "ak_not_enrolled"

// codeInvalidSession is its answer to an enrolment that has taken the device too
// long, or that was answered before: its own answer to that was lost.
const codeInvalidSession = "invalid_session"

// akCertificates returns the attester's certificates for the device's
// attestation key. It enrols first where there are none that are valid.
func (c *attesterCall) akCertificates(ctx context.Context, key keystore.AttestableKey) ([][]byte, error) {
	chain, err := key.AKCertificates(ctx, c.url)
	if err != nil {
		return nil, fmt.Errorf("client: enrolment with the attester: %w", err)
	}
	if c.enrolled || c.valid(chain) {
		return chain, nil
	}
	return c.enrol(ctx, key)
}

// valid reports whether there is a chain and its leaf has not expired.
func (c *attesterCall) valid(chain [][]byte) bool {
	if len(chain) == 0 {
		return false
	}
	leaf, err := x509.ParseCertificate(chain[0])
	return err == nil && c.clock.now().Before(leaf.NotAfter)
}

// mustEnrol reports whether err asks for an enrolment, which can help once.
func (c *attesterCall) mustEnrol(err error) (keystore.AttestableKey, bool) {
	if !refusedFor(err, codeNotEnrolled) || c.enrolled {
		return nil, false
	}
	key, ok := c.request.Key.(keystore.AttestableKey)
	return key, ok
}

// refusedFor reports whether err is the attester's refusal with that code.
func refusedFor(err error, code string) bool {
	var refused *AttesterError
	return errors.As(err, &refused) && refused.Code == code
}

// enrol gets a certificate for the device's attestation key. Where the attester
// does not know its own session any more, it begins anew, once.
func (c *attesterCall) enrol(ctx context.Context, key keystore.AttestableKey) ([][]byte, error) {
	c.enrolled = true
	chain, err := c.enrolOnce(ctx, key)
	if refusedFor(err, codeInvalidSession) {
		chain, err = c.enrolOnce(ctx, key)
	}
	return chain, err
}

// enrolOnce proves to the attester that the attestation key is in the same TPM as
// the endorsement key, and gets a certificate for it. Byte strings on the wire
// are in base64.
func (c *attesterCall) enrolOnce(ctx context.Context, key keystore.AttestableKey) ([][]byte, error) {
	start := time.Now()
	device, err := key.Enrolment(ctx)
	c.request.Trace.evidence(ctx, start, evidenceEnrolment, err)
	if err != nil {
		return nil, fmt.Errorf("client: enrolment with the attester: %w", err)
	}
	type parameters struct {
		Public []byte `json:"public"`
	}
	request := struct {
		EK             []byte     `json:"ek"`
		EKCertificates [][]byte   `json:"ekCerts"`
		Parameters     parameters `json:"params"`
	}{device.EK, append([][]byte{}, device.EKCertificates...), parameters{device.AK}}
	var challenge struct {
		Session    string `json:"session"`
		Credential []byte `json:"credential"`
		Secret     []byte `json:"secret"`
	}
	if err := c.post(ctx, "/tpm/attest", request, &challenge); err != nil {
		return nil, err
	}
	if challenge.Session == "" || len(challenge.Credential) == 0 || len(challenge.Secret) == 0 {
		return nil, c.unexpected("/tpm/attest")
	}
	start = time.Now()
	secret, err := key.Activate(ctx, challenge.Credential, challenge.Secret)
	c.request.Trace.evidence(ctx, start, evidenceActivate, err)
	if err != nil {
		return nil, fmt.Errorf("client: enrolment with the attester: %w", err)
	}
	answer := struct {
		Session string `json:"session"`
		Secret  []byte `json:"secret"`
	}{challenge.Session, secret}
	var issued struct {
		Chain [][]byte `json:"chain"`
	}
	if err := c.post(ctx, "/tpm/secret", answer, &issued); err != nil {
		return nil, err
	}
	if len(issued.Chain) == 0 {
		return nil, c.unexpected("/tpm/secret")
	}
	if err := key.SetAKCertificates(ctx, c.url, issued.Chain); err != nil {
		return nil, fmt.Errorf("client: enrolment with the attester: %w", err)
	}
	return issued.Chain, nil
}
