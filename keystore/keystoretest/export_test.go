// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"context"

	"github.com/instancekey/instancekey/keystore"
)

const CallersAtOnce = callersAtOnce

var HoldsPrivateKey = holdsPrivateKey

// Findings runs every check, those of RunPersistent included, and returns what
// each of them found fault with. It also returns the number of checks.
func Findings(newPlace func() func() keystore.Store) (found map[string][]string, checks int) {
	found = make(map[string][]string)
	for _, list := range [][]storeCheck{storeChecks, restartChecks} {
		for _, c := range list {
			checks++
			r := &recorder{}
			r.run(context.Background(), func() { c.run(r, newPlace()) })
			if len(r.found) != 0 {
				found[c.name] = r.found
			}
		}
	}
	return found, checks
}
