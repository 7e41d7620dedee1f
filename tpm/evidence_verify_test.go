// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

type statement struct {
	Version      string   `cbor:"ver"`
	Algorithm    int      `cbor:"alg"`
	Certificates [][]byte `cbor:"x5c"`
	Signature    []byte   `cbor:"sig"`
	CertifyInfo  []byte   `cbor:"certInfo"`
	Public       []byte   `cbor:"pubArea"`
}

// readStatement decodes a statement, which must be canonical and have nothing
// else in it.
func readStatement(t *testing.T, encoded []byte) statement {
	t.Helper()
	strict, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Format    string    `cbor:"fmt"`
		Statement statement `cbor:"attStmt"`
	}
	if err := strict.Unmarshal(encoded, &object); err != nil {
		t.Fatalf("the statement %x: %v", encoded, err)
	}
	var members map[string]any
	if err := strict.Unmarshal(encoded, &members); err != nil {
		t.Fatal(err)
	}
	canonical, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := canonical.Marshal(members); err != nil || !bytes.Equal(again, encoded) {
		t.Errorf("the statement %x is not canonical", encoded)
	}
	if object.Format != "tpm" || object.Statement.Version != "2.0" || object.Statement.Algorithm != -7 {
		t.Errorf("statement: fmt %q, ver %q, alg %d", object.Format, object.Statement.Version, object.Statement.Algorithm)
	}
	return object.Statement
}

// verifyEvidence verifies what an attester would, by two implementations. local
// says that the key was made in the TPM.
func verifyEvidence(t *testing.T, key keystore.Key, ak []byte, evidence keystore.Evidence, local bool, pcrs ...int) {
	t.Helper()
	s := readStatement(t, evidence.Statement)
	if len(s.Certificates) != 1 || !bytes.Equal(s.Certificates[0], certificate) {
		t.Errorf("x5c is %x", s.Certificates)
	}
	certified, err := verifyAttest(t, ak, s.CertifyInfo, s.Signature).Attested.Certify()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(certified.Name.Buffer, name.Buffer) {
		t.Errorf("certified is %x, and pubArea is that of %x", certified.Name.Buffer, name.Buffer)
	}
	if pub, err := tpm2.Pub(*public); err != nil || !key.Public().(*ecdsa.PublicKey).Equal(pub) {
		t.Errorf("pubArea is another key's: %v", err)
	}
	akPublic, err := attest.ParseAKPublic(ak)
	if err != nil {
		t.Fatal(err)
	}
	parameters := attest.CertificationParameters{Public: s.Public, CreateAttestation: s.CertifyInfo, CreateSignature: s.Signature}
	if err := parameters.Verify(attest.VerifyOpts{Public: akPublic.Public, Hash: crypto.SHA256}); (err == nil) != local {
		t.Errorf("go-attestation about the key: %v", err)
	}
	verifyQuote(t, ak, akPublic, evidence.Quote, pcrs)
}

func verifyQuote(t *testing.T, ak []byte, akPublic *attest.AKPublic, quote *keystore.Quote, pcrs []int) {
	t.Helper()
	if len(pcrs) == 0 {
		if quote != nil {
			t.Errorf("a quote that nobody asked for: %+v", quote)
		}
		return
	}
	if quote == nil {
		t.Fatal("no quote")
	}
	if got := slices.Sorted(maps.Keys(quote.PCRs)); !slices.Equal(got, pcrs) || quote.HashAlg != 11 {
		t.Errorf("quoted are the PCRs %d of bank %d, want %d of 11", got, quote.HashAlg, pcrs)
	}
	info, err := verifyAttest(t, ak, quote.Quoted, quote.Signature).Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	var values []attest.PCR
	for _, pcr := range pcrs {
		digest.Write(quote.PCRs[pcr])
		values = append(values, attest.PCR{Index: pcr, Digest: quote.PCRs[pcr], DigestAlg: crypto.SHA256})
	}
	if !bytes.Equal(digest.Sum(nil), info.PCRDigest.Buffer) {
		t.Error("the PCRs' values are not those that were quoted")
	}
	if err := akPublic.VerifyAll([]attest.Quote{{Quote: quote.Quoted, Signature: quote.Signature}}, values, binding); err != nil {
		t.Errorf("go-attestation about the quote: %v", err)
	}
}

// verifyAttest verifies a TPMS_ATTEST of the attestation key.
func verifyAttest(t *testing.T, ak, attested, signature []byte) *tpm2.TPMSAttest {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := signed.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	joined := append(pad(rs.SignatureR.Buffer), pad(rs.SignatureS.Buffer)...)
	if !verifyES256(pub.(*ecdsa.PublicKey), attested, joined) || rs.Hash != tpm2.TPMAlgSHA256 {
		t.Errorf("the signature %x is not the attestation key's", signature)
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](attested)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(attested, []byte("\xffTCG")) || !bytes.Equal(attest.ExtraData.Buffer, binding) {
		t.Errorf("%x is not from a TPM, or not bound to %x", attested, binding)
	}
	return attest
}

func verifyES256(key *ecdsa.PublicKey, input, signature []byte) bool {
	digest := sha256.Sum256(input)
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

func pad(number []byte) []byte { return append(make([]byte, 32-len(number)), number...) }
