// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// wrap makes a key outside of the TPM and wraps it for d's storage root key, as
// a Client Attester does.
func wrap(t *testing.T, d tpmtest.Device, curve elliptic.Curve, options ...keyfile.TPMKeyOption) (*ecdsa.PublicKey, []byte) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	srk, public, err := keyfile.CreateSRK(keyfile.NewTPMSession(conn), tpm2.TPMRHOwner, nil)
	if err != nil {
		t.Fatal(err)
	}
	keyfile.FlushHandle(conn, srk)
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := keyfile.NewImportablekey(public, *private, options...)
	if err != nil {
		t.Fatal(err)
	}
	return &private.PublicKey, wrapped.Bytes()
}

func TestImport(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, tt := range map[string]struct {
		curve   elliptic.Curve
		options []keyfile.TPMKeyOption
	}{
		"P-256": {elliptic.P256(), nil},
		"P-384": {elliptic.P384(), nil},
		"PIN":   {elliptic.P256(), []keyfile.TPMKeyOption{keyfile.WithUserAuth([]byte("1234"))}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, sim, withPIN("1234"))
			public, text := wrap(t, sim, tt.curve, tt.options...)
			r.calls.Reset()
			key, err := r.Import(t.Context(), "key", text)
			if err != nil {
				t.Fatal(err)
			}
			r.calls.Want(t, ccCreatePrimary, ccImport, ccLoad, ccFlush)
			if !public.Equal(key.Public()) {
				t.Error("another key was imported")
			}
			sign(t, key)
			_, err = r.Import(t.Context(), "key", text)
			wantError(t, err, keystore.ErrExists)

			s := r.reopen(t)
			defer s.Close()
			sign(t, open(t, s, "key"))
			stored, err := os.ReadFile(filepath.Join(r.config.Dir, "key.pem"))
			if err != nil || bytes.Equal(stored, text) {
				t.Errorf("the file is what was imported: %v", err)
			}
			_, err = r.Import(t.Context(), "again", stored)
			if wantError(t, err, keystore.ErrCorrupt); t.Failed() {
				t.Log(err)
			}
		})
	}
}

func TestImportErrors(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	_, good := wrap(t, sim, elliptic.P256())
	_, p521 := wrap(t, sim, elliptic.P521())
	r.calls.Reset()
	for name, text := range map[string][]byte{
		"empty": nil, "torn": good[:len(good)/2], "P-521": p521, "no PEM": []byte("hello"),
	} {
		want := []error{keystore.ErrCorrupt}
		if name == "P-521" { // a healthy key
			want = []error{keystore.ErrUnavailable, errors.ErrUnsupported}
		}
		_, err := r.Import(t.Context(), "key", text)
		wantError(t, err, want...)
		t.Logf("%s: %v", name, err)
	}
	r.calls.Want(t)

	// An importable key in the folder is no key yet.
	if err := os.WriteFile(filepath.Join(r.config.Dir, "wrapped.pem"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := r.Open(t.Context(), "wrapped")
	wantError(t, err, keystore.ErrCorrupt)
	if err := r.Delete(t.Context(), "wrapped"); err != nil {
		t.Error(err)
	}

	sim.Manufacture()
	_, err = r.Import(t.Context(), "key", good)
	wantError(t, err, keystore.ErrKeyLost, tpm2.TPMRCIntegrity)
	if names, _ := r.List(t.Context()); len(names) != 0 {
		t.Errorf("%q were left", names)
	}
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{}))
}
