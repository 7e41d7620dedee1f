// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// race does all that can be done with a key, in any order. What another process has
// done before is no error.
func race(ctx context.Context, s *tpm.Store) error {
	for range 25 {
		var err error
		switch rand.IntN(6) {
		case 0, 1:
			_, err = keystore.OpenOrCreate(ctx, s, "key")
		case 2:
			err = s.Delete(ctx, "key")
		case 3:
			err = s.Persist(ctx, "key", handle)
		case 4:
			err = s.Unpersist(ctx, "key")
		case 5:
			var key keystore.Key
			if key, err = s.Open(ctx, "key"); err == nil {
				_, err = key.Sign(ctx, []byte("input"))
			}
		}
		if err != nil && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrExists) && !isBenign(err) {
			return err
		}
	}
	return nil
}

// isBenign reports whether an error is one of the races that the Store tells about:
// the key was deleted, or moved, between two steps.
func isBenign(err error) bool {
	return strings.Contains(err.Error(), "another program has changed the file meanwhile") || errors.Is(err, keystore.ErrKeyLost)
}
