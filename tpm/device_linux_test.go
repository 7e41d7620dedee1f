// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"os"
	"testing"

	"github.com/instancekey/instancekey/tpm"
)

// TestPlaceOfVirtual: what is not in the machine has no place there, so that nothing of a
// container's is taken for the machine's TPM. A TPM's place is found by TestLinuxKernel.
func TestPlaceOfVirtual(t *testing.T) {
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, f := range []*os.File{null, file} {
		if place := tpm.PlaceOf(f); place != "" {
			t.Errorf("%s: %q", f.Name(), place)
		}
	}
}
