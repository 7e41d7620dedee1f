// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"errors"
	"fmt"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// TestLostAnswerOfParent is TestLostAnswerIsNoSecondTry for TPM2_Load, which tries whether a
// persistent parent that is not noDA has no password.
func TestLostAnswerOfParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	manager := tpmtest.NewResourceManager(t, sim)
	lost := errors.New("lost")
	for wayName, way := range map[string]tpmtest.Fault{
		"answer lost":  {Executed: true, Lost: true, Err: lost},
		"answer torn":  {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"command lost": {Lost: true, Err: lost},
	} {
		for _, password := range []string{"", "secret"} {
			for _, before := range []int{0, 1} {
				t.Run(fmt.Sprintf("%s, password %q, %d counted", wayName, password, before), func(t *testing.T) {
					sim.Manufacture()
					r := newRig(t, manager)
					put(t, r, "key", keyUnderParent(t, sim, password))
					countTries(t, manager, before)
					r.calls.Reset()
					fault := way
					fault.Command, fault.Times = ccLoad, 1
					r.faults.Add(fault)
					key, err := r.Open(t.Context(), "key")
					if err == nil {
						_, err = key.Sign(t.Context(), []byte("message"))
					}

					isRight := password == ""
					tries := 1
					if before == 0 && (isRight || !way.Executed) {
						tries = 2
					}
					if n := r.calls.Count(ccLoad); n != tries {
						t.Errorf("TPM2_Load was sent %d times, want %d", n, tries)
					}
					if isRight && before == 0 {
						if err != nil {
							t.Errorf("there is no password: %v", err)
						}
					} else { // nobody knows
						wantError(t, err, keystore.ErrAuth)
					}
					counted := before
					if !isRight && (way.Executed || before == 0) {
						counted++
					}
					if n := wrongTries(t, sim); n != counted {
						t.Errorf("%d wrong tries are counted, want %d", n, counted)
					}
					if isRight {
						sign(t, open(t, r.Store, "key"))
					}
				})
			}
		}
	}
}

// keyUnderParent makes a persistent parent that has the password, and returns the file of
// a key of it, which has none.
func keyUnderParent(t *testing.T, sim *tpmtest.Sim, password string) []byte {
	t.Helper()
	const at = tpm2.TPMHandle(0x81000001)
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	secret := tpm2.TPM2BAuth{Buffer: []byte(password)}
	parent, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: secret}},
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	named := tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: named, PersistentHandle: at}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.PasswordAuth(secret.Buffer)},
		InPublic:     tpm2.New2B(signingTemplate()),
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	flush(t, sim, parent.ObjectHandle)
	return (&keyfile.TPMKey{
		Keytype: keyfile.OIDLoadableKey, EmptyAuth: true, Parent: at, Pubkey: made.OutPublic, Privkey: made.OutPrivate,
	}).Bytes()
}
