// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

func TestDoctorPasswords(t *testing.T) {
	eachTPM(t, func(t *testing.T, s *served) {
		keys := t.TempDir()
		ok(t, "key", "create", "-name", "k", "-store", s.store, "-keys", keys)
		s.with(t, func(conn transport.TPM) {
			for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement, tpm2.TPMRHLockout} {
				tpmtest.ChangeHierarchyAuth(t, conn, hierarchy, "", "password")
			}
		})
		d := examined(t, "-store", s.store, "-keys", keys)
		d.failed("storage root key", "key k")
		d.want("owner hierarchy", statusWarn, "has a password", "-owner-auth-file FILE", "tpm2_changeauth -c owner -p file:FILE")
		d.want("endorsement hierarchy", statusWarn, "has a password", "-endorsement-auth-file FILE", "tpm2_changeauth -c endorsement -p file:FILE")
		d.want("storage root key", statusFail, "see owner hierarchy")
		d.want("key k", statusFail, "see owner hierarchy")

		password, wrong := writeFile(t, "password", "password\n"), writeFile(t, "wrong", "wrong")
		d = examined(t, "-store", s.store, "-keys", keys, "-owner-auth-file", password, "-endorsement-auth-file", password)
		d.failed()
		d.want("owner hierarchy", statusOK, "has a password, which is given")
		d.want("endorsement hierarchy", statusOK, "has a password, which is given")
		d.want("key k", statusOK, "signs")
		ok(t, "key", "create", "-name", "l", "-store", s.store, "-keys", keys, "-owner-auth-file", password)
		ok(t, "evidence", "-name", "l", "-store", s.store, "-keys", keys, "-owner-auth-file", password, "-endorsement-auth-file", password)
		for given, want := range map[string]string{"": "-owner-auth-file", wrong: "-owner-auth-file"} {
			args := []string{"key", "create", "-name", "m", "-store", s.store, "-keys", keys}
			if given != "" {
				args = append(args, "-owner-auth-file", given)
			}
			if r := instancectl(t, args...); r.status != 1 || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "Config") {
				t.Errorf("%q: status %d, %s", given, r.status, r.stderr)
			}
		}
		examined(t, "-store", s.store, "-owner-auth-file", wrong).want("storage root key", statusFail, "-owner-auth-file")
	})
}
