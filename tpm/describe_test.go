// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

func describe(t *testing.T, s *tpm.Store, name string) tpm.Description {
	t.Helper()
	d, err := s.Describe(t.Context(), name)
	if err != nil {
		t.Fatalf("Describe(%q): %v", name, err)
	}
	return d
}

func TestDescribe(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t), withPIN("1234"))
	srk := status(t, r.Store).StorageRootKey.Name
	for name, tt := range map[string]struct {
		options tpm.KeyOptions
		want    tpm.Description
	}{
		"plain":    {tpm.KeyOptions{}, tpm.Description{NoDA: true}},
		"P-384":    {tpm.KeyOptions{Algorithm: "ES384"}, tpm.Description{NoDA: true, Algorithm: "ES384"}},
		"PIN":      {tpm.KeyOptions{PIN: true}, tpm.Description{PIN: true}},
		"PCRs":     {tpm.KeyOptions{PCRs: []int{23, 0, 7}}, tpm.Description{NoDA: true, PCRs: []int{0, 7, 23}}},
		"PCRs-PIN": {tpm.KeyOptions{PCRs: []int{8}, PIN: true}, tpm.Description{PIN: true, PCRs: []int{8}}},
	} {
		t.Run(name, func(t *testing.T) {
			key := create(t, r.Store, name, tt.options)
			want := tt.want
			want.File = filepath.Join(r.config.Dir, name+".pem")
			want.Public = key.Public()
			want.Parent, want.ParentName = 0x40000001, srk
			if want.Algorithm == "" {
				want.Algorithm = "ES256"
			}
			r.calls.Reset()
			if got := describe(t, r.Store, name); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			r.calls.Want(t)
			if err := r.Persist(t.Context(), name, handle); err != nil {
				t.Fatal(err)
			}
			if got := describe(t, r.Store, name).Handle; got != handle {
				t.Errorf("persistent at 0x%x, want 0x%x", got, uint32(handle))
			}
			if err := r.Unpersist(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDescribeImported(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	public, text := wrap(t, sim, elliptic.P256(), keyfile.WithUserAuth([]byte("1234")))
	if _, err := r.Import(t.Context(), "key", text); err != nil {
		t.Fatal(err)
	}
	got := describe(t, r.Store, "key")
	if !got.Imported || !got.PIN || !got.Public.(*ecdsa.PublicKey).Equal(public) {
		t.Errorf("got %+v", got)
	}
}

// A file of another program says nothing of the storage root key, until it was
// opened.
func TestDescribeForeign(t *testing.T) {
	r, others := besides(t, tpmtest.Simulator(t))
	others.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-out", filepath.Join(r.config.Dir, "key.pem"))
	if got := describe(t, r.Store, "key"); got.ParentName != nil || got.Parent != 0x40000001 || got.PIN {
		t.Errorf("got %+v", got)
	}
	open(t, r.Store, "key")
	if got := describe(t, r.Store, "key"); !bytes.Equal(got.ParentName, status(t, r.Store).StorageRootKey.Name) {
		t.Errorf("got %+v", got)
	}
}

func TestDescribeErrors(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	create(t, r.Store, "open", tpm.KeyOptions{})
	if err := os.Chmod(filepath.Join(r.config.Dir, "open.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.config.Dir, "torn.pem"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.calls.Reset()
	for name, want := range map[string]error{
		"missing": keystore.ErrNotFound, "open": keystore.ErrUnavailable, "torn": keystore.ErrCorrupt,
	} {
		_, err := r.Describe(t.Context(), name)
		wantError(t, err, want)
	}
	if _, err := r.Describe(t.Context(), "../key"); err == nil {
		t.Error("a path is described")
	}
	r.calls.Want(t)
	r.Close()
	_, err := r.Describe(t.Context(), "torn")
	wantError(t, err, keystore.ErrClosed)
}
