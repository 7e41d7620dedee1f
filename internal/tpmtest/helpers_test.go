// SPDX-License-Identifier: Apache-2.0

package tpmtest_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// signer is a signing key without a parent.
var signer = tpm2.New2B(tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
})

func create(t *testing.T, tpm transport.TPM) *tpm2.CreatePrimaryResponse {
	t.Helper()
	rsp, err := tryCreate(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return rsp
}

func tryCreate(tpm transport.TPM) (*tpm2.CreatePrimaryResponse, error) {
	return tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: signer}.Execute(tpm)
}

func sign(tpm transport.TPM, handle tpm2.TPMHandle, name tpm2.TPM2BName, auth tpm2.Session) error {
	return signDigest(tpm, tpm2.AuthHandle{Handle: handle, Name: name, Auth: auth}, make([]byte, 32))
}

func signKey(tpm transport.TPM, key *tpm2.CreatePrimaryResponse) error {
	return signWith(tpm, key, make([]byte, 32))
}

func signWith(tpm transport.TPM, key *tpm2.CreatePrimaryResponse, digest []byte, extra ...tpm2.Session) error {
	return signDigest(tpm, tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)}, digest, extra...)
}

func signDigest(tpm transport.TPM, key tpm2.AuthHandle, digest []byte, extra ...tpm2.Session) error {
	_, err := tpm2.Sign{
		KeyHandle: key,
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}.Execute(tpm, extra...)
	return err
}

// persist makes key persistent, and flushes it.
func persist(t *testing.T, tpm transport.TPM, key *tpm2.CreatePrimaryResponse, handle tpm2.TPMHandle) {
	t.Helper()
	_, err := tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: handle,
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	flush(t, tpm, key.ObjectHandle)
}

func flush(t *testing.T, tpm transport.TPM, handle tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
}

func random(tpm transport.TPM) error {
	_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tpm)
	return err
}

func samePublic(a, b *tpm2.CreatePrimaryResponse) bool {
	return bytes.Equal(a.OutPublic.Bytes(), b.OutPublic.Bytes())
}

// fakeTB stands in for the test of somebody whose assertion fails.
type fakeTB struct {
	testing.TB
	errors, fatals int
}

func (f *fakeTB) Helper()               {}
func (f *fakeTB) Errorf(string, ...any) { f.errors++ }
func (f *fakeTB) Fatalf(string, ...any) {
	f.fatals++
	runtime.Goexit()
}
