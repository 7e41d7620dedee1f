// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// verifiedFor is how long a loaded key is taken for what it was when a signature of it
// was last verified, which takes no command.
const verifiedFor = time.Second

// noTicket says that the digest to be signed was not made by the TPM, which only
// a restricted key would mind.
var noTicket = tpm2.Marshal(tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull})

// sign loads the key, signs, and finds out before a server does that the signature is
// another key's.
func (c *call) sign(k *keyfile.File, digest []byte, needsPIN bool, pin []byte) ([]byte, error) {
	if needsPIN && pin == nil && !c.knowsPIN(k) {
		return nil, errNeedPIN // before anything is loaded
	}
	if c.key.isFor(k) && c.key.persistent() && needsPIN && !c.knowsPIN(k) {
		c.key = nil // look again what is at the handle, before its PIN is tried on another key
	}
	if _, err := c.load(k); err != nil {
		return nil, err
	}
	usesValue := needsPIN || !k.UsesPolicy || k.Policy.HasAuthValue()
	counts := usesValue && c.counts(k, needsPIN, pin)
	signature, err := c.signAuthorized(k, digest, needsPIN, pin)
	if err != nil {
		return nil, unlessAnswered(counts, c.whileThere(k, err))
	}
	// What is at a persistent handle may be another key at any time, and what is in a
	// slot of a raw device after a reset. Signatures that follow closely upon each
	// other are not all worth the time.
	if c.key.persistent() || time.Since(c.key.verified) > verifiedFor {
		if !k.Verify(digest, signature) {
			return nil, c.whileThere(k, fmt.Errorf("%w: the signature is not the key's", errGarbled))
		}
		c.key.verified = time.Now()
	}
	return signature, nil
}

// signAuthorized signs with the loaded key. Where a PCR is extended between policy and
// signature, it repeats both.
func (c *call) signAuthorized(k *keyfile.File, digest []byte, needsPIN bool, pin []byte) ([]byte, error) {
	defer c.forgetUnproved(k)
	retry := policyRetry{call: c}
	for {
		auth, err := c.authorize(k, needsPIN, pin)
		if err != nil {
			return nil, err
		}
		signature, err := c.signDigest(k, auth, digest)
		if err == nil {
			c.succeeded(auth)
			c.taken(k, needsPIN)
			return signature, nil
		}
		if err := retry.after(err, auth.Handle()); err != nil {
			c.rejected(k, auth, err)
			return nil, err
		}
	}
}

// signDigest satisfies the key's policy, sends TPM2_Sign (TPM 2.0 Part 3, "TPM2_Sign")
// for the loaded key and returns r‖s.
//
// These are the commands that every request waits for, and with those of query.go and
// authorized.go the only ones that are put together here. go-tpm finds out by reflection what a command looks like, which takes
// longer than all else that is done for a signature outside of the TPM, and most of
// all on a device with a small processor. Its sessions and structures are used here,
// too. They are encoded before the first is sent, so that another program's extending
// a PCR finds the least time to come between.
func (c *call) signDigest(k *keyfile.File, auth tpm2.Session, digest []byte) ([]byte, error) {
	if err := auth.NewNonceCaller(); err != nil {
		return nil, err
	}
	names := []tpm2.TPM2BName{k.Name}
	command, err := signCommand(c.key.handle, names, k.Scheme, auth, digest)
	if err != nil {
		return nil, err
	}
	if err := c.satisfy(policyCommands(k.Policy, auth.Handle())); err != nil {
		return nil, err
	}
	parameters, err := c.sendAuthorized(tpm2.TPMCCSign, command, names, auth)
	if code, ok := err.(tpm2.TPMRC); ok { // and not one that Send tells of
		return nil, ofKey(code)
	}
	if err != nil {
		return nil, err
	}
	return joinSignature(k, parameters)
}

// signCommand encodes the command. auth encrypts the digest, if it does that.
func signCommand(handle tpm2.TPMHandle, names []tpm2.TPM2BName, scheme []byte, auth tpm2.Session, digest []byte) ([]byte, error) {
	parameters := make([]byte, 0, 2+len(digest)+len(scheme)+len(noTicket))
	parameters = appendSized(parameters, digest)
	parameters = append(parameters, scheme...)
	parameters = append(parameters, noTicket...)
	if err := auth.Encrypt(parameters[2 : 2+len(digest)]); err != nil {
		return nil, err
	}
	return authorizedCommand(tpm2.TPMCCSign, []tpm2.TPMHandle{handle}, names, auth, parameters)
}

// joinSignature makes r‖s of a TPMT_SIGNATURE. A TPM may leave out leading zeros.
func joinSignature(k *keyfile.File, encoded cryptobyte.String) ([]byte, error) {
	var alg, hash uint16
	var r, s cryptobyte.String
	if !encoded.ReadUint16(&alg) || !encoded.ReadUint16(&hash) ||
		!encoded.ReadUint16LengthPrefixed(&r) || !encoded.ReadUint16LengthPrefixed(&s) || !encoded.Empty() ||
		tpm2.TPMAlgID(alg) != tpm2.TPMAlgECDSA || tpm2.TPMAlgID(hash) != k.HashAlg {
		return nil, fmt.Errorf("%w: TPM2_Sign: no ECDSA signature", errGarbled)
	}
	joined := make([]byte, 2*k.CoordinateSize)
	for i, part := range [][]byte{r, s} {
		part = bytes.TrimLeft(part, "\x00")
		if len(part) > k.CoordinateSize {
			return nil, fmt.Errorf("%w: a signature of %d bytes", errGarbled, len(part))
		}
		copy(joined[(i+1)*k.CoordinateSize-len(part):], part)
	}
	return joined, nil
}
