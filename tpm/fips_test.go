// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestFIPSOnly: where Go allows nothing but FIPS 140 what cannot be done is an
// error, and no panic in a goroutine of the Store's.
func TestFIPSOnly(t *testing.T) {
	sim := tpmtest.Simulator(t)
	socket := tpmtest.ServeUnix(t, tpmtest.NewResourceManager(t, sim))
	r := newRig(t, sim, withPIN(childPIN))
	create(t, r.Store, "made-elsewhere", tpm.KeyOptions{PIN: true})
	r.Close()
	cmd := childCommand(socket, filepath.Dir(r.config.Dir), "FIPS")
	cmd.Env = append(cmd.Env, "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	noLeaks(t, sim)

	tpmtest.ChangeHierarchyAuth(t, sim, tpm2.TPMRHOwner, "", "short")
	cmd = childCommand(socket, filepath.Dir(r.config.Dir), "FIPS owner")
	cmd.Env = append(cmd.Env, "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// underFIPS runs in a process of its own.
func underFIPS(ctx context.Context, s *tpm.Store) error {
	if !fips140.Enforced() {
		return errors.New("GODEBUG=fips140=only has no effect")
	}
	refuses := func(err error) error {
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "fips140=on") {
			return fmt.Errorf("%w, want that fips140=only is named", err)
		}
		return nil
	}
	key, err := s.Open(ctx, "made-elsewhere")
	if err != nil {
		return err
	}
	_, signErr := key.Sign(ctx, []byte("input"))
	for i, o := range kinds {
		key, err := s.CreateKey(ctx, fmt.Sprint(i), o)
		if o.PIN || len(o.PCRs) > 0 {
			if err := refuses(err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if _, err := key.Sign(ctx, []byte("input")); err != nil {
			return err
		}
		if _, err := key.(keystore.AttestableKey).Evidence(ctx, keystore.EvidenceRequest{Binding: binding}); err != nil {
			return err
		}
	}
	// An endorsement key of the low range is used by a policy.
	if _, err := key.(keystore.AttestableKey).Activate(ctx, []byte("credential"), []byte("secret")); refuses(err) != nil {
		return refuses(err)
	}
	return refuses(signErr)
}
