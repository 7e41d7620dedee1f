// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/base64"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4/json"
)

// Limits of what is read. A statement has about a kilobyte, an event log some
// tens of kilobytes; the request as a whole is limited by the server.
const (
	maxStatement    = 32 << 10
	maxCertificates = 4 // in x5c

	// That of an EK and links from it: chips that certify their own EKs come with
	// four and more.
	maxEKCertificates = 16
	maxEKChain        = 10 << 10 // of those that are needed, in bytes

	// maxRSA is more bits than the key of any maker has. A link is tried before it is
	// known where it leads, and 180,000 bits, which fit into a request, take 5 seconds.
	maxRSA = 4096

	maxEventLog = 512 << 10
)

// message is the evidence member of a request.
type message struct {
	Statement string    `json:"attObj"` // base64url, CBOR
	Platform  *platform `json:"tpmAttestation"`
}

// platform is what the device says of its boot.
type platform struct {
	Quotes   []quote `json:"quotes"`
	EventLog []byte  `json:"tcgEventLog"`

	UserspaceLog []byte `json:"canonicalEventLog"`
	IMALog       []byte `json:"imaLog"`
}

type quote struct {
	HashAlg   int               `json:"hashAlgo"`  // TPM_ALG_ID of the bank
	PCRs      map[string][]byte `json:"pcrValues"` // by their number in decimal
	Quoted    []byte            `json:"rawQuote"`  // TPMS_ATTEST
	Signature []byte            `json:"rawSignature"`
}

// keyStatement is a WebAuthn attestation statement of format "tpm" (W3C Web
// Authentication, section 8.3).
type keyStatement struct {
	Version      string            `cbor:"ver"`
	Algorithm    int64             `cbor:"alg"` // COSE
	Certificates []cbor.ByteString `cbor:"x5c"` // DER, leaf first
	Signature    cbor.ByteString   `cbor:"sig"` // TPMT_SIGNATURE
	CertInfo     cbor.ByteString   `cbor:"certInfo"`
	PublicArea   cbor.ByteString   `cbor:"pubArea"`
}

// strictCBOR refuses whatever allows two readers to see two things in one text.
var strictCBOR = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// parseMessage reads the evidence of a request.
func parseMessage(evidence []byte) (*message, *keyStatement, error) {
	var m message
	if err := json.Unmarshal(evidence, &m); err != nil {
		return nil, nil, refuse(CodeInvalidEvidence, "evidence: %v", err)
	}
	if m.Statement == "" {
		return nil, nil, refuse(CodeInvalidEvidence, "evidence has no attObj")
	}
	if base64.RawURLEncoding.DecodedLen(len(m.Statement)) > maxStatement {
		return nil, nil, refuse(CodeInvalidEvidence, "attObj has more than %d bytes", maxStatement)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(m.Statement)
	if err != nil || strings.ContainsAny(m.Statement, "\r\n") { // which the decoder passes over
		return nil, nil, refuse(CodeInvalidEvidence, "attObj is not base64url without padding")
	}
	statement, err := parseStatement(raw)
	if err != nil {
		return nil, nil, err
	}
	return &m, statement, nil
}

// parseStatement reads an attestation object: CBOR, with exactly the members of
// the format "tpm", and without authData.
func parseStatement(raw []byte) (*keyStatement, error) {
	var object struct {
		Format    string          `cbor:"fmt"`
		Statement cbor.RawMessage `cbor:"attStmt"`
	}
	if err := strictCBOR.Unmarshal(raw, &object); err != nil {
		return nil, refuse(CodeInvalidEvidence, "attObj: %v", err)
	}
	if object.Format != "tpm" {
		return nil, refuse(CodeUnsupportedEvidence, "attObj has the format %.40q, not tpm", object.Format)
	}
	var s keyStatement
	if err := strictCBOR.Unmarshal(object.Statement, &s); err != nil {
		return nil, refuse(CodeInvalidEvidence, "attStmt: %v", err)
	}
	if s.Version != "2.0" {
		return nil, refuse(CodeUnsupportedEvidence, "attStmt is of version %.40q, not 2.0", s.Version)
	}
	for name, value := range map[string]cbor.ByteString{"sig": s.Signature, "certInfo": s.CertInfo, "pubArea": s.PublicArea} {
		if value == "" {
			return nil, refuse(CodeInvalidEvidence, "attStmt has no %s", name)
		}
	}
	if n := len(s.Certificates); n > maxCertificates {
		return nil, refuse(CodeInvalidEvidence, "x5c has %d certificates", n)
	}
	return &s, nil
}
