// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// newTemplate returns the public area of a key to be made, without its policy.
func newTemplate(o KeyOptions) (tpm2.TPMTPublic, error) {
	if err := checkPCRs(o.PCRs); err != nil {
		return tpm2.TPMTPublic{}, err
	}
	if o.Algorithm == "" {
		o.Algorithm = "ES256"
	}
	for _, a := range keyfile.Algorithms {
		if a.JWS == o.Algorithm {
			return template(a, o), nil
		}
	}
	return tpm2.TPMTPublic{}, fmt.Errorf("tpm: no key for algorithm %.40q: use ES256 or ES384", o.Algorithm)
}

func template(a keyfile.Algorithm, o KeyOptions) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			SignEncrypt:         true,
			// Bound to PCRs, the policy must be the only way.
			UserWithAuth: len(o.PCRs) == 0,
			// Without a PIN there is nothing to guess, and a lockout that
			// another program has caused must not stop the key.
			NoDA: !o.PIN,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: a.Curve,
			// No scheme: it comes with each TPM2_Sign. Verifiers of Web
			// Authentication take a scheme to be two bytes long, which null is.
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// create makes a key and loads it. The storage root key gets a PIN if it is one of
// those that are pinned, or none is.
func (c *call) create(template tpm2.TPMTPublic, pcrs []int, pin []byte, pinned [][]byte) (*keyfile.File, error) {
	if len(pcrs) == 0 {
		return c.createKey(template, nil, pin, pinned)
	}
	bound, err := c.bindPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	var policy keyfile.Policy
	if pin != nil {
		policy = append(policy, tpm2.PolicyAuthValue{})
	}
	// Last: from here to the signature, no PCR at all must be extended.
	policy = append(policy, bound)
	if template.AuthPolicy.Buffer, err = policy.Digest(template.NameAlg); err != nil {
		return nil, err
	}
	k, err := c.createKey(template, policy, pin, pinned)
	if err != nil {
		return nil, err
	}
	// The values of the PCRs are what whoever sits on the bus has said.
	if pin != nil {
		c.rememberPIN(k, pin)
		c.provedPIN(k) // the key was made with it
	}
	_, err = c.sign(k, make([]byte, k.CoordinateSize), pin != nil, nil)
	c.forgetPIN(k) // which was given for this alone
	if errors.Is(err, keystore.ErrPolicy) {
		return nil, fmt.Errorf("%w: the PCRs are not what the TPM has said, or have been extended since: try again: %v", errGarbled, err)
	}
	if err != nil {
		return nil, fmt.Errorf("use the new key: %w", err)
	}
	return k, nil
}

func (c *call) createKey(template tpm2.TPMTPublic, policy keyfile.Policy, pin []byte, pinned [][]byte) (*keyfile.File, error) {
	c.makeRoom()
	p, err := c.loadParent(keyfile.Parent{Handle: tpm2.TPMRHOwner})
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	if pin != nil {
		if err := checkPinned(p.Name.Buffer, pinned); err != nil {
			return nil, err
		}
	}
	rsp, err := c.createUnder(p, template, pin)
	if err != nil {
		return nil, about(theParent, fmt.Errorf("TPM2_Create: %w", err))
	}
	if !follows(rsp.OutPublic, template) || !madeUnder(rsp, p) {
		return nil, fmt.Errorf("%w: TPM2_Create made another key than it was asked for", errGarbled)
	}
	k, err := keyfile.New(keyfile.Parent{Handle: tpm2.TPMRHOwner, Name: p.Name.Buffer}, rsp.OutPublic, rsp.OutPrivate, pin == nil, policy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGarbled, err)
	}
	if err := c.loadUnder(p, k); errors.Is(err, keystore.ErrCorrupt) {
		return nil, fmt.Errorf("%w: TPM2_Create gave a key that cannot be loaded: %v", errGarbled, err) // and never was in a file
	} else if err != nil {
		return nil, err
	}
	c.prepareSession(p, k)
	return k, nil
}

// madeUnder reports whether the TPM says that the key's parent has the Name that
// p has. The file will have it, too.
func madeUnder(rsp *tpm2.CreateResponse, p *object) bool {
	data, err := rsp.CreationData.Contents()
	return err == nil && bytes.Equal(data.ParentName.Buffer, p.Name.Buffer)
}

// follows reports whether a key is what the template says in all but its point.
func follows(public tpm2.TPM2BPublic, template tpm2.TPMTPublic) bool {
	made, err := public.Contents()
	if err != nil || made.Type != template.Type {
		return false
	}
	kind := *made
	kind.Unique = template.Unique
	return bytes.Equal(tpm2.Marshal(kind), tpm2.Marshal(template))
}

// createUnder sends TPM2_Create, with the PIN, where there is one, encrypted to
// the parent.
func (c *call) createUnder(p *object, template tpm2.TPMTPublic, pin []byte) (*tpm2.CreateResponse, error) {
	command := tpm2.Create{ParentHandle: p.AuthHandle, InPublic: tpm2.New2B(template)}
	if pin == nil {
		return command.Execute(c)
	}
	s, err := c.openSessionUnder(p, hmacKind(p.Name.Buffer))
	if err != nil {
		return nil, err
	}
	s.setPIN(nil) // the parent has none
	command.ParentHandle = tpm2.AuthHandle{Handle: p.Handle, Name: p.Name, Auth: s}
	command.InSensitive = tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: pin}}}
	rsp, err := command.Execute(c)
	if err == nil {
		c.succeeded(s)
		s.uses = 0
	}
	if err != nil || c.managed && !template.ObjectAttributes.UserWithAuth {
		c.flushSession(s) // signing needs another, and each is swapped around every command
	}
	return rsp, err
}
