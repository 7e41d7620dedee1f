// SPDX-License-Identifier: Apache-2.0

// Package evidencereport reads the evidence in a request to a Client Attester for
// reports: TPM structures and boot logs, which package client/report does not read.
package evidencereport

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/client/report"
)

// Read is for report.Options.Evidence. It says nothing about whether the evidence is
// genuine.
func Read(evidence []byte) (*report.Evidence, error) {
	var message struct {
		Statement string `json:"attObj"`
		Platform  struct {
			Quotes []struct {
				PCRs   map[string][]byte `json:"pcrValues"`
				Quoted []byte            `json:"rawQuote"`
			} `json:"quotes"`
			EventLog []byte `json:"tcgEventLog"`
		} `json:"tpmAttestation"`
	}
	if err := json.Unmarshal(evidence, &message); err != nil {
		return nil, err
	}
	certified, err := readStatement(message.Statement)
	if err != nil {
		return nil, err
	}
	read := &report.Evidence{Parts: []report.EvidencePart{*certified}}
	for _, quote := range message.Platform.Quotes {
		part, err := readQuote(quote.Quoted)
		if err != nil {
			return nil, err
		}
		read.Parts = append(read.Parts, *part)
		for _, name := range slices.Sorted(maps.Keys(quote.PCRs)) {
			number, err := strconv.Atoi(name)
			if err != nil {
				return nil, err
			}
			read.PCRs = append(read.PCRs, report.PCR{Number: number, Value: hex.EncodeToString(quote.PCRs[name])})
		}
	}
	if len(message.Platform.EventLog) > 0 {
		if err := readLog(read, message.Platform.EventLog); err != nil {
			return nil, err
		}
	}
	return read, nil
}

// readStatement reads the CBOR object of W3C Web Authentication, section 8.3.
func readStatement(text string) (*report.EvidencePart, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	var object struct {
		Statement struct {
			CertifyInfo  []byte   `cbor:"certInfo"`
			Public       []byte   `cbor:"pubArea"`
			Certificates [][]byte `cbor:"x5c"`
		} `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	info, err := tpm2.Unmarshal[tpm2.TPMSAttest](object.Statement.CertifyInfo)
	if err != nil {
		return nil, err
	}
	certified, err := info.Attested.Certify()
	if err != nil {
		return nil, err
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](object.Statement.Public)
	if err != nil {
		return nil, err
	}
	fields := append([]report.Field{
		{Name: "certified key", Value: short(certified.Name.Buffer) + " (TPM Name)"},
		{Name: "attributes", Value: strings.Join(attributes(public.ObjectAttributes), ", ")},
		{Name: "certificates", Value: fmt.Sprintf("%d, of the attestation key", len(object.Statement.Certificates))},
	}, common(info)...)
	return &report.EvidencePart{Title: "TPM2_Certify: the key is in this TPM", Fields: fields}, nil
}

// attributes are those by which an attester knows that a key cannot leave its TPM.
func attributes(a tpm2.TPMAObject) (names []string) {
	for _, attribute := range []struct {
		set  bool
		name string
	}{
		{a.FixedTPM, "fixedTPM"}, {a.FixedParent, "fixedParent"}, {a.SensitiveDataOrigin, "sensitiveDataOrigin"},
		{a.UserWithAuth, "userWithAuth"}, {a.NoDA, "noDA"}, {a.SignEncrypt, "sign"}, {a.Restricted, "restricted"}, {a.Decrypt, "decrypt"},
	} {
		if attribute.set {
			names = append(names, attribute.name)
		}
	}
	return names
}

func readQuote(quoted []byte) (*report.EvidencePart, error) {
	info, err := tpm2.Unmarshal[tpm2.TPMSAttest](quoted)
	if err != nil {
		return nil, err
	}
	quote, err := info.Attested.Quote()
	if err != nil {
		return nil, err
	}
	fields := append([]report.Field{{Name: "digest of the PCRs", Value: hex.EncodeToString(quote.PCRDigest.Buffer)}}, common(info)...)
	return &report.EvidencePart{Title: "TPM2_Quote: what was measured", Fields: fields}, nil
}

// common is what every statement of a TPM has.
func common(info *tpm2.TPMSAttest) []report.Field {
	return []report.Field{
		{Name: "bound to", Value: short(info.ExtraData.Buffer) + " (the attester's challenge and the key)"},
		{Name: "attestation key", Value: short(info.QualifiedSigner.Buffer)},
		{Name: "resets, restarts", Value: fmt.Sprintf("%d, %d", info.ClockInfo.ResetCount, info.ClockInfo.RestartCount)},
	}
}

// short is the beginning of what identifies a device.
func short(name []byte) string {
	text := hex.EncodeToString(name)
	return text[:min(len(text), 12)] + "…"
}

func readLog(read *report.Evidence, raw []byte) error {
	log, err := attest.ParseEventLog(raw)
	if err != nil {
		return err
	}
	events := log.Events(attest.HashSHA256)
	for _, e := range events {
		read.Events = append(read.Events, report.Event{PCR: e.Index, Type: e.Type.String(), Digest: hex.EncodeToString(e.Digest)})
	}
	return nil
}
