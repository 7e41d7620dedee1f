// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// TestEvidenceOfTPM: the whole exchange with a TPM, which keeps what the
// attester has issued.
func TestEvidenceOfTPM(t *testing.T) {
	sim := tpmtest.Simulator(t)
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: sim.Dial, Dir: filepath.Join(t.TempDir(), "keys")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := store.Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	a := newEvidenceAttester(t)
	challenge := bytes.Repeat([]byte{0x5e}, 32)
	a.activate = func(body map[string]any) ([]byte, []byte) {
		ak := unmarshalPublic(t, body["params"].(map[string]any)["public"])
		public, err := tpm2.Pub(*ak)
		if err != nil {
			t.Fatal(err)
		}
		a.chain = [][]byte{certificateFor(t, public.(*ecdsa.PublicKey), time.Hour)}
		return makeCredential(t, body["ek"], ak, challenge)
	}
	for range 2 {
		if _, err := a.attest(key); err != nil {
			t.Fatal(err)
		}
		if sent, _ := a.claims()["evidence"].(map[string]any); sent["attObj"] == "" || sent["tpmAttestation"] == nil {
			t.Errorf("evidence %v", sent)
		}
	}
	a.wantPaths("/challenge", "/tpm/attest", "/tpm/secret", "/client-attestation", "/challenge", "/client-attestation")
	if got := a.bodies[2]["secret"]; got != base64.StdEncoding.EncodeToString(challenge) {
		t.Errorf("activated %v", got)
	}
}

func unmarshalPublic(t *testing.T, encoded any) *tpm2.TPMTPublic {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded.(string))
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func makeCredential(t *testing.T, ek any, ak *tpm2.TPMTPublic, challenge []byte) (credential, secret []byte) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(ek.(string))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	template := tpm2.RSAEKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.(*rsa.PublicKey).N.Bytes()})
	encapsulation, err := tpm2.ImportEncapsulationKey(&template)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		t.Fatal(err)
	}
	credential, secret, err = tpm2.CreateCredential(rand.Reader, encapsulation, name.Buffer, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return credential, secret
}
