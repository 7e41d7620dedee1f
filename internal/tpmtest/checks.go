// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// NoLeaks fails the test if the TPM holds a transient object or a session, loaded or saved. Give it the chip: behind a
// resource manager each file sees its own objects only.
func NoLeaks(t testing.TB, tpm transport.TPM) {
	t.Helper()
	for _, kind := range []struct {
		name string
		of   tpm2.TPMHT
	}{
		{"transient objects", tpm2.TPMHTTransient},
		{"loaded sessions", tpm2.TPMHTHMACSession},
		{"saved sessions", tpm2.TPMHTPolicySession}, // TPM_HT_SAVED_SESSION is the same number
	} {
		if handles := Handles(t, tpm, kind.of); len(handles) != 0 {
			t.Errorf("%s left in the TPM: %#x", kind.name, handles)
		}
	}
}

// Handles returns the TPM's handles of one type. For sessions, TPM_HT_HMAC_SESSION asks for all that are loaded, and
// TPM_HT_POLICY_SESSION for all that are saved. TPM 2.0 Part 3, TPM2_GetCapability.
func Handles(t testing.TB, tpm transport.TPM, of tpm2.TPMHT) []tpm2.TPMHandle {
	t.Helper()
	rsp, err := tpm2.GetCapability{
		Capability:    tpm2.TPMCapHandles,
		Property:      uint32(of) << 24,
		PropertyCount: 100,
	}.Execute(tpm)
	if err != nil {
		t.Fatalf("tpmtest: asking for handles of type %#x: %v", uint8(of), err)
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatalf("tpmtest: handles of type %#x: %v", uint8(of), err)
	}
	return list.Handle
}

// ExtendPCR measures event into a PCR, all banks, as firmware does at boot: each bank is extended with its own hash of
// event.
func ExtendPCR(t testing.TB, tpm transport.TPM, pcr int, event string) {
	t.Helper()
	_, err := tpm2.PCREvent{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		EventData: tpm2.TPM2BEvent{Buffer: []byte(event)},
	}.Execute(tpm)
	if err != nil {
		t.Fatalf("tpmtest: extending PCR %d: %v", pcr, err)
	}
}

// ChangeHierarchyAuth changes the password of a hierarchy.
func ChangeHierarchyAuth(t testing.TB, tpm transport.TPM, hierarchy tpm2.TPMHandle, from, to string) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth([]byte(from))},
		NewAuth:    tpm2.TPM2BAuth{Buffer: []byte(to)},
	}.Execute(tpm)
	if err != nil {
		t.Fatalf("tpmtest: changing the password of the hierarchy %#x: %v", uint32(hierarchy), err)
	}
}
