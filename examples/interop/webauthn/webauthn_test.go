// SPDX-License-Identifier: Apache-2.0

package webauthn_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"github.com/instancekey/instancekey/examples/internal/webauthn"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestGoWebAuthn: the key statement of a device verifies as a registration, and not
// when something in it was changed.
func TestGoWebAuthn(t *testing.T) {
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: tpmtest.Simulator(t).Dial, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := store.Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	r, err := webauthn.Register(t.Context(), key.(keystore.AttestableKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, r, r.ClientDataJSON); err != nil {
		t.Errorf("the registration: %v", err)
	}
	other := []byte(strings.Replace(string(r.ClientDataJSON), `"crossOrigin":false`, `"crossOrigin":true`, 1))
	if err := verify(t, r, other); err == nil {
		t.Error("verifies for other client data than what the TPM has signed")
	}
}

func verify(t *testing.T, r *webauthn.Registration, clientData []byte) error {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	body, err := json.Marshal(map[string]any{
		"id": b64(r.CredentialID), "rawId": b64(r.CredentialID), "type": "public-key",
		"response": map[string]string{"clientDataJSON": b64(clientData), "attestationObject": b64(r.AttestationObject)},
	})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(body)
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.Response.AttestationObject.Format; got != "tpm" {
		t.Fatalf("format %s", got)
	}
	_, err = parsed.Verify(r.Challenge, webauthn.RPID, []string{webauthn.Origin}, nil, nil, protocol.TopOriginAutoVerificationMode, false, true, true, nil,
		[]protocol.CredentialParameter{{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256}},
		protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	return err
}
