// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/fips140"
	"fmt"

	"github.com/instancekey/instancekey/keystore"
)

// minFIPSKey is the shortest key of an HMAC, in bytes (NIST SP 800-131A).
const minFIPSKey = 14

// checkFIPS refuses what Go panics at under GODEBUG=fips140=only: AES-CFB, by which
// a session encrypts, and an HMAC with a short key, as that of a session without a
// salt has. keySize is how much of the key is known to be there.
func checkFIPS(what string, keySize int) error {
	if !fips140.Enforced() || keySize >= minFIPSKey {
		return nil
	}
	return fmt.Errorf("%w: GODEBUG=fips140=only does not allow %s: use fips140=on", keystore.ErrUnavailable, what)
}
