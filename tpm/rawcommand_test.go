// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// rawCommand sends a command that go-tpm does not have: with one handle, whose
// password is empty.
func rawCommand(t *testing.T, sim *tpmtest.Sim, code tpm2.TPMCC, handle tpm2.TPMHandle, parameters ...byte) {
	t.Helper()
	body := binary.BigEndian.AppendUint32(nil, uint32(handle))
	body = append(body, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0) // TPM_RS_PW
	body = append(body, parameters...)
	command := []byte{0x80, 2}
	command = binary.BigEndian.AppendUint32(command, uint32(10+len(body)))
	command = binary.BigEndian.AppendUint32(command, uint32(code))
	response, err := sim.Send(append(command, body...))
	if err != nil {
		t.Fatal(err)
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])); rc != tpm2.TPMRCSuccess {
		t.Fatal(rc)
	}
}

// forgive sets the count of wrong tries back.
func forgive(t *testing.T, sim *tpmtest.Sim) {
	t.Helper()
	rawCommand(t, sim, tpm2.TPMCCDictionaryAttackLockReset, tpm2.TPMRHLockout)
}

// disableOwner disables the owner hierarchy until the next start of the TPM.
func disableOwner(t *testing.T, sim *tpmtest.Sim) {
	t.Helper()
	owner := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHOwner))
	rawCommand(t, sim, tpm2.TPMCCHierarchyControl, tpm2.TPMRHOwner, append(owner, 0)...)
}
