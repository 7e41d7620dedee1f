// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// previewChallenge stands in for an attester's, so that no attester accepts what
// is made here.
const previewChallenge = "instancectl evidence"

func evidence(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("evidence", "", "Shows what a Client Attester would get to see of a key and of the device; of the logs that -event-log,\n"+
		"-userspace-log and -ima-log name, how long they are. Nothing is sent. It is private to the device: the\n"+
		"endorsement key tells it from all others. A key file that another program has made gets the Name of\n"+
		"the key's parent added.")
	var f keyFlags
	f.store.RegisterPIN(fs)
	f.store.RegisterEK(fs)
	f.store.RegisterLogs(fs)
	pcrs := fs.String("pcrs", "0,1,2,3,4,5,6,7", "the `PCRs` that the attester asks for, such as 0,2,7; empty: none")
	if err := p.parseKey(fs, &f, args, ""); err != nil {
		return err
	}
	quoted, err := storeflag.ParsePCRs(*pcrs)
	if err != nil {
		return usageError{err}
	}
	store, err := openStore(ctx, p, &f.store, existingFolder)
	if err != nil {
		return err
	}
	defer store.Close()
	opened, err := store.Open(ctx, f.name)
	if err != nil {
		return err
	}
	key, ok := opened.(keystore.AttestableKey)
	if !ok {
		return errNeedsTPM
	}
	done := p.progress.step("collecting evidence")
	view, err := collectEvidence(ctx, key, quoted)
	done()
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(p.stdout).Encode(view)
	}
	_, err = fmt.Fprintln(p.stdout, jwtview.Indent(view))
	return err
}

// evidenceView is evidence in terms that people can read. Octets are in
// hexadecimal.
type evidenceView struct {
	EK             ekView     `json:"endorsement_key"`
	AttestationKey string     `json:"attestation_key_name"` // TPM Name
	Key            keyProof   `json:"key"`
	Quote          *quoteView `json:"quote,omitempty"`

	// Sizes; 0: no such log is sent.
	EventLogSize     int `json:"event_log_bytes"`
	UserspaceLogSize int `json:"userspace_log_bytes,omitempty"`
	IMALogSize       int `json:"ima_log_bytes,omitempty"`
}

type ekView struct {
	SHA256       string            `json:"sha256"` // of the SubjectPublicKeyInfo, as attesters list devices
	Certificates []certificateView `json:"certificates"`
}

type certificateView struct {
	Subject  string `json:"subject"` // often empty: the TPM is in the alternative name
	Issuer   string `json:"issuer"`
	Serial   string `json:"serial"`
	NotAfter string `json:"not_after"`
}

// keyProof is what TPM2_Certify says of the key.
type keyProof struct {
	Thumbprint string     `json:"thumbprint"` // RFC 7638, SHA-256
	Name       string     `json:"certified_name"`
	Attributes []string   `json:"attributes"`
	Statement  attestView `json:"statement"`
}

type quoteView struct {
	PCRs      map[string]string `json:"pcrs"`
	PCRDigest string            `json:"pcr_digest"`
	Statement attestView        `json:"statement"`
}

// attestView is what every statement of a TPM has: TPMS_ATTEST.
type attestView struct {
	Signer       string `json:"qualified_signer"`
	Binding      string `json:"binding"` // to the attester's challenge and the key
	ClockMillis  uint64 `json:"clock_ms"`
	ResetCount   uint32 `json:"reset_count"`
	RestartCount uint32 `json:"restart_count"`
	Safe         bool   `json:"clock_safe"`
	Firmware     string `json:"firmware"`
}

func collectEvidence(ctx context.Context, key keystore.AttestableKey, pcrs []int) (*evidenceView, error) {
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	enrolment, err := key.Enrolment(ctx)
	if err != nil {
		return nil, err
	}
	binding := sha256.Sum256([]byte(previewChallenge + "." + thumbprint))
	collected, err := key.Evidence(ctx, keystore.EvidenceRequest{Binding: binding[:], PCRs: pcrs})
	if err != nil {
		return nil, err
	}
	view := &evidenceView{EventLogSize: len(collected.EventLog), UserspaceLogSize: len(collected.UserspaceLog), IMALogSize: len(collected.IMALog), Key: keyProof{Thumbprint: thumbprint}}
	if err := view.readEnrolment(enrolment); err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	if err := view.readStatement(collected.Statement); err != nil {
		return nil, fmt.Errorf("key statement: %w", err)
	}
	if err := view.readQuote(collected.Quote); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return view, nil
}

func (v *evidenceView) readEnrolment(e keystore.Enrolment) error {
	digest := sha256.Sum256(e.EK)
	v.EK = ekView{SHA256: hex.EncodeToString(digest[:]), Certificates: []certificateView{}}
	for _, der := range e.EKCertificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		v.EK.Certificates = append(v.EK.Certificates, certificateView{c.Subject.String(), c.Issuer.String(), c.SerialNumber.String(), c.NotAfter.UTC().String()})
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](e.AK)
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return err
	}
	v.AttestationKey = hex.EncodeToString(name.Buffer)
	return nil
}

// readStatement reads the CBOR object of W3C Web Authentication, section 8.3.
func (v *evidenceView) readStatement(statement []byte) error {
	var object struct {
		Statement struct {
			CertifyInfo []byte `cbor:"certInfo"`
			Public      []byte `cbor:"pubArea"`
		} `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(statement, &object); err != nil {
		return err
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](object.Statement.CertifyInfo)
	if err != nil {
		return err
	}
	certified, err := attest.Attested.Certify()
	if err != nil {
		return err
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](object.Statement.Public)
	if err != nil {
		return err
	}
	v.Key.Name = hex.EncodeToString(certified.Name.Buffer)
	v.Key.Attributes = attributeNames(public.ObjectAttributes)
	v.Key.Statement = readAttest(attest)
	return nil
}

// attributeNames are the names of TPM 2.0 Part 2, TPMA_OBJECT.
func attributeNames(a tpm2.TPMAObject) []string {
	names := []string{}
	for _, attribute := range []struct {
		set  bool
		name string
	}{
		{a.FixedTPM, "fixedTPM"}, {a.STClear, "stClear"}, {a.FixedParent, "fixedParent"}, {a.SensitiveDataOrigin, "sensitiveDataOrigin"},
		{a.UserWithAuth, "userWithAuth"}, {a.AdminWithPolicy, "adminWithPolicy"}, {a.NoDA, "noDA"},
		{a.EncryptedDuplication, "encryptedDuplication"}, {a.Restricted, "restricted"}, {a.Decrypt, "decrypt"}, {a.SignEncrypt, "sign"},
	} {
		if attribute.set {
			names = append(names, attribute.name)
		}
	}
	return names
}

func (v *evidenceView) readQuote(q *keystore.Quote) error {
	if q == nil {
		return nil
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Quoted)
	if err != nil {
		return err
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return err
	}
	v.Quote = &quoteView{
		PCRs:      make(map[string]string),
		PCRDigest: hex.EncodeToString(info.PCRDigest.Buffer),
		Statement: readAttest(attest),
	}
	for pcr, value := range q.PCRs {
		v.Quote.PCRs[strconv.Itoa(pcr)] = hex.EncodeToString(value)
	}
	return nil
}

func readAttest(a *tpm2.TPMSAttest) attestView {
	return attestView{
		Signer:       hex.EncodeToString(a.QualifiedSigner.Buffer),
		Binding:      hex.EncodeToString(a.ExtraData.Buffer),
		ClockMillis:  a.ClockInfo.Clock,
		ResetCount:   a.ClockInfo.ResetCount,
		RestartCount: a.ClockInfo.RestartCount,
		Safe:         bool(a.ClockInfo.Safe),
		Firmware:     fmt.Sprintf("%016x", a.FirmwareVersion),
	}
}
