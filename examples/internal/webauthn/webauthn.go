// SPDX-License-Identifier: Apache-2.0

// Package webauthn makes of a key in a TPM what a browser sends when it registers
// one (W3C Web Authentication, section 7.1), so that libraries for that can be asked
// what they think of this repository's key statements. It is for tests.
package webauthn

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/big"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-attestation/oid"
	ekx509 "github.com/google/go-attestation/x509"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/keystore"
)

// Whom a Registration is for.
const (
	Origin = "https://rp.example.com"
	RPID   = "rp.example.com"
)

// A Registration is what a relying party gets, and what it trusts.
type Registration struct {
	Challenge         string // base64url
	ClientDataJSON    []byte
	AttestationObject []byte // CBOR
	CredentialID      []byte
	Root              *x509.Certificate // of the attestation key's certificate
}

// Register enrols the device's attestation key with a reference attester and has it
// certify the key. The key statement is the device's own but for two things: sig is
// in DER, as the libraries want it, and authData is added.
func Register(ctx context.Context, key keystore.AttestableKey) (*Registration, error) {
	chain, root, err := enrol(ctx, key)
	if err != nil {
		return nil, err
	}
	r := &Registration{Challenge: base64.RawURLEncoding.EncodeToString([]byte(rand.Text())), CredentialID: []byte(rand.Text()), Root: root}
	r.ClientDataJSON, err = json.Marshal(map[string]any{
		"type": "webauthn.create", "challenge": r.Challenge, "origin": Origin, "crossOrigin": false,
	})
	if err != nil {
		return nil, err
	}
	authData, err := authenticatorData(r.CredentialID, key.Public().(*ecdsa.PublicKey))
	if err != nil {
		return nil, err
	}
	clientDataHash := sha256.Sum256(r.ClientDataJSON)
	binding := sha256.Sum256(append(authData, clientDataHash[:]...))
	collected, err := key.Evidence(ctx, keystore.EvidenceRequest{Binding: binding[:], AKCertificates: chain[:1]}) // as package client does
	if err != nil {
		return nil, err
	}
	r.AttestationObject, err = convert(collected.Statement, authData)
	return r, err
}

// enrol is steps 1 and 2 of PROTOCOL.md. The TPM's maker is one that the libraries
// know by name; they know no simulator.
func enrol(ctx context.Context, key keystore.AttestableKey) (chain [][]byte, root *x509.Certificate, err error) {
	maker, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		return nil, nil, err
	}
	device, err := key.Enrolment(ctx)
	if err != nil {
		return nil, nil, err
	}
	ek, err := x509.ParsePKIXPublicKey(device.EK)
	if err != nil {
		return nil, nil, err
	}
	name, err := ekx509.MarshalSubjectAltName(&ekx509.SubjectAltName{DirectoryNames: []pkix.Name{{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: oid.TPMManufacturer, Value: "id:414D4400"}, // AMD
		{Type: oid.TPMModel, Value: "AMD"},
		{Type: oid.TPMVersion, Value: "id:00030001"},
	}}}}, true)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := maker.Certify(ek, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{name} })
	if err != nil {
		return nil, nil, err
	}
	ca, err := evidence.CreateCA(time.Now())
	if err != nil {
		return nil, nil, err
	}
	roots, err := evidence.NewRoots([]*x509.Certificate{maker.Root}, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	verifier, err := evidence.New(evidence.Config{Roots: roots, CA: ca})
	if err != nil {
		return nil, nil, err
	}
	enrolment, err := verifier.Enrol(evidence.EnrolmentRequest{EK: device.EK, EKCertificates: [][]byte{certificate}, AK: device.AK})
	if err != nil {
		return nil, nil, err
	}
	answer, err := key.Activate(ctx, enrolment.Credential, enrolment.Secret)
	if err != nil {
		return nil, nil, err
	}
	chain, err = verifier.Complete(enrolment, answer)
	return chain, ca.Certificate(), err
}

// authenticatorData: section 6.1, with the credential's public key as COSE has it.
func authenticatorData(credentialID []byte, public *ecdsa.PublicKey) ([]byte, error) {
	point, err := public.Bytes()
	if err != nil || len(point) != 65 {
		return nil, errors.Join(err, errors.New("webauthn: the key is not on P-256"))
	}
	key, err := cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		return nil, err
	}
	const userPresent, userVerified, hasCredential = 1, 4, 64
	rp := sha256.Sum256([]byte(RPID))
	data := append(rp[:], userPresent|userVerified|hasCredential)
	data = binary.BigEndian.AppendUint32(data, 0) // signCount
	data = append(data, make([]byte, 16)...)      // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(credentialID)))
	return append(append(data, credentialID...), key...), nil
}

// convert puts authData and a DER signature into a key statement.
func convert(statement, authData []byte) ([]byte, error) {
	var object struct {
		Format    string         `cbor:"fmt"`
		Statement map[string]any `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(statement, &object); err != nil {
		return nil, err
	}
	encoded, ok := object.Statement["sig"].([]byte)
	if !ok {
		return nil, errors.New("webauthn: no sig")
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](encoded)
	if err != nil {
		return nil, err
	}
	ecc, err := signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	var der cryptobyte.Builder
	der.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(ecc.SignatureR.Buffer))
		b.AddASN1BigInt(new(big.Int).SetBytes(ecc.SignatureS.Buffer))
	})
	if object.Statement["sig"], err = der.Bytes(); err != nil {
		return nil, err
	}
	return cbor.Marshal(map[string]any{"fmt": object.Format, "attStmt": object.Statement, "authData": authData})
}
