// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// unanswered is the error of a command that the TPM may have counted as a wrong try: its
// answer was lost, and the TPM has never taken the PIN that it was authorized by, or that
// there is none.
type unanswered struct{ error }

func (e *unanswered) Unwrap() error { return e.error }

// unlessAnswered returns err, as unanswered if that is so.
func unlessAnswered(counts bool, err error) error {
	if err == nil || !counts || errors.As(err, new(tpm2.TPMRC)) {
		return err
	}
	return &unanswered{err}
}

// counts reports whether the TPM would count the use of a key as a wrong try, if pin or
// the PIN that is known was wrong, or if there was one.
func (c *call) counts(k *keyfile.File, needsPIN bool, pin []byte) bool {
	if k.NoDA || pin != nil {
		return !k.NoDA
	}
	if known := c.pins[string(k.Name.Buffer)]; needsPIN && known != nil {
		return !known.proved
	}
	return !c.bare[string(k.Name.Buffer)]
}

// taken notes that the TPM has taken a key's PIN, or that there is none.
func (c *call) taken(k *keyfile.File, needsPIN bool) {
	if needsPIN {
		c.provedPIN(k)
	} else if !k.NoDA {
		c.takenBare(k.Name)
	}
}

// takenBare notes that an object has no PIN.
func (c *call) takenBare(name tpm2.TPM2BName) {
	if c.bare == nil {
		c.bare = make(map[string]bool)
	}
	c.bare[string(name.Buffer)] = true
}

// mayRepeat returns an error if the operation that has failed with err could be counted as
// a second wrong try. If the TPM counts none, the first was right, or did not come to it.
// Otherwise nobody knows: the count may be of other wrong tries, and of power cuts.
func (c *call) mayRepeat(err error) error {
	if !errors.As(err, new(*unanswered)) {
		return nil
	}
	if err := c.connect(); err != nil {
		return err
	}
	tries, asked := c.property(tpm2.TPMPTLockoutCounter)
	switch asked = c.checked(asked); {
	case asked != nil:
		return fmt.Errorf("%w: the TPM's answer was lost, and it does not say whether it has counted a wrong try: try again: %w", keystore.ErrUnavailable, asked)
	case tries > 0:
		return fmt.Errorf("%w: the TPM's answer was lost, and of the wrong tries that it counts, %d, one may be this: check the PIN, and try again: %w", keystore.ErrAuth, tries, err)
	}
	return nil
}
