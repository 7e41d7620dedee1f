// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestLostAnswerOfParent is TestLostAnswerIsNoSecondTry for TPM2_Load, which tries whether a
// persistent parent that is not noDA has no password.
func TestLostAnswerOfParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	manager := tpmtest.NewResourceManager(t, sim)
	for wayName, way := range waysToLose {
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
					wantLost(t, r, sim, fault, isRight, before, err)
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
