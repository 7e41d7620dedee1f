// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestStatement: what is written here is what a library writes, octet for octet, around
// every length at which the form changes.
func TestStatement(t *testing.T) {
	type statement struct {
		Version      string   `cbor:"ver"`
		Algorithm    int      `cbor:"alg"`
		Certificates [][]byte `cbor:"x5c,omitempty"`
		Signature    []byte   `cbor:"sig"`
		CertifyInfo  []byte   `cbor:"certInfo"`
		Public       []byte   `cbor:"pubArea"`
	}
	type object struct {
		Format    string    `cbor:"fmt"`
		Statement statement `cbor:"attStmt"`
	}
	encoder, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{0, 1, 23, 24, 25, 255, 256, 257, 65535, 65536, 65537} {
		octets := bytes.Repeat([]byte{'x'}, length)
		for _, number := range []int{0, 1, 2, 23, 24, 25, 300} {
			certificates := make([][]byte, number)
			for i := range certificates {
				certificates[i] = octets[:min(length, 300+i)]
			}
			for i, p := range []proof{{signature: octets}, {certifyInfo: octets}, {signature: []byte{1}, certifyInfo: []byte{2}}} {
				public := octets[:min(length, 1000*i)]
				want, err := encoder.Marshal(object{"tpm", statement{"2.0", -7, certificates, append([]byte{}, p.signature...), append([]byte{}, p.certifyInfo...), public}})
				if err != nil {
					t.Fatal(err)
				}
				if got := appendStatement(nil, &p, public, certificates); !bytes.Equal(got, want) {
					t.Fatalf("%d octets, %d certificates: %.80x, want %.80x", length, number, got, want)
				}
			}
		}
	}
}
