// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/webauthn"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestSimpleWebAuthn: npm's @simplewebauthn/server verifies the key statement of a
// device as a registration, down to the attester's CA, and not when something is
// another than what the TPM has signed. Package webauthn here asks go-webauthn.
func TestSimpleWebAuthn(t *testing.T) {
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: tpmtest.Simulator(t).Dial, Dir: filepath.Join(t.TempDir(), "keys")})
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
	another, err := webauthn.Register(t.Context(), key.(keystore.AttestableKey))
	if err != nil {
		t.Fatal(err)
	}
	otherData, otherRoot := *r, *r
	otherData.ClientDataJSON = []byte(strings.Replace(string(r.ClientDataJSON), `"crossOrigin":false`, `"crossOrigin":true`, 1))
	otherRoot.Root = another.Root
	answers := askSimpleWebAuthn(t, r, &otherData, &otherRoot)
	for i, want := range []string{
		`{"verified":true,"format":"tpm"}`,
		`{"error":"CertInfo extra data did not equal hashed attestation (TPM)"}`,
		`{"error":"x5c could not be chained to any specified trust anchor (TPM)"}`,
	} {
		if answers[i] != want {
			t.Errorf("registration %d: %s, want %s", i, answers[i], want)
		}
	}
}

// askSimpleWebAuthn returns the answer to each registration.
func askSimpleWebAuthn(t *testing.T, registrations ...*webauthn.Registration) []string {
	t.Helper()
	node, err := install()
	if err != nil {
		missing(t, err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	var questions bytes.Buffer
	for _, r := range registrations {
		err := json.NewEncoder(&questions).Encode(map[string]any{
			"response": map[string]any{
				"id": b64(r.CredentialID), "rawId": b64(r.CredentialID), "type": "public-key", "clientExtensionResults": map[string]any{},
				"response": map[string]string{"clientDataJSON": b64(r.ClientDataJSON), "attestationObject": b64(r.AttestationObject)},
			},
			"challenge": r.Challenge, "origin": webauthn.Origin, "rpID": webauthn.RPID,
			"root": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Root.Raw})),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), node, "webauthn.mjs")
	cmd.Stdin = &questions
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(answers) != len(registrations) {
		t.Fatalf("webauthn.mjs: %v\n%s\n%s", err, out, stderr)
	}
	return answers
}
