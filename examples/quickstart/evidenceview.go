// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
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

	"github.com/instancekey/instancekey/examples/internal/jwtview"
)

// An evidenceView is what there is in evidence, in terms that people can read.
// It says nothing about whether it is genuine: that is step c.
type evidenceView struct {
	EK       string `json:"ek,omitempty"`        // fingerprint of the endorsement key
	EKIssuer string `json:"ek_issuer,omitempty"` // of its certificate
	AKName   string `json:"ak_name,omitempty"`   // TPM Name of the attestation key
	Enrolled bool   `json:"enrolled"`            // the attester has certified it now
	KeyName  string `json:"certified_name"`      // TPM Name of the Client Instance Key
	PCRs     []int  `json:"pcrs"`                // those that were quoted
	Events   int    `json:"boot_log_events"`
}

// readEnrolment reads the first request of an enrolment.
func (v *evidenceView) readEnrolment(body []byte) error {
	var request struct {
		EK             []byte   `json:"ek"`
		EKCertificates [][]byte `json:"ekCerts"`
		Parameters     struct {
			Public []byte `json:"public"`
		} `json:"params"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return err
	}
	v.EK = hexDigest(request.EK)
	for _, der := range request.EKCertificates {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		if v.EKIssuer = certificate.Issuer.CommonName; v.EKIssuer == "" {
			v.EKIssuer = certificate.Issuer.String()
		}
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](request.Parameters.Public)
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return err
	}
	v.AKName = hex.EncodeToString(name.Buffer)
	return nil
}

// readRequest reads the evidence in a request for an attestation, and takes it
// out of view: for people it is only long. It reports whether there was any.
func (v *evidenceView) readRequest(view *jwtview.View) (found bool, err error) {
	var claims struct {
		Evidence json.RawMessage `json:"evidence"`
	}
	if err := json.Unmarshal(view.Claims, &claims); err != nil || claims.Evidence == nil {
		return false, err
	}
	view.Claims = bytes.Replace(view.Claims, claims.Evidence, []byte(`"…"`), 1)
	var message struct {
		Statement string `json:"attObj"`
		Platform  struct {
			Quotes []struct {
				PCRs map[string][]byte `json:"pcrValues"`
			} `json:"quotes"`
			EventLog []byte `json:"tcgEventLog"`
		} `json:"tpmAttestation"`
	}
	if err := json.Unmarshal(claims.Evidence, &message); err != nil {
		return true, err
	}
	if v.KeyName, err = certifiedName(message.Statement); err != nil {
		return true, err
	}
	v.PCRs = []int{}
	for _, quote := range message.Platform.Quotes {
		for pcr := range maps.Keys(quote.PCRs) {
			number, err := strconv.Atoi(pcr)
			if err != nil {
				return true, err
			}
			v.PCRs = append(v.PCRs, number)
		}
	}
	slices.Sort(v.PCRs)
	if len(message.Platform.EventLog) > 0 {
		log, err := attest.ParseEventLog(message.Platform.EventLog)
		if err != nil {
			return true, err
		}
		v.Events = len(log.Events(attest.HashSHA256))
	}
	return true, nil
}

// certifiedName returns the Name of the key that a statement is about.
func certifiedName(text string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", err
	}
	var object struct {
		Statement struct {
			CertInfo []byte `cbor:"certInfo"`
		} `cbor:"attStmt"`
	}
	if err := cbor.Unmarshal(raw, &object); err != nil {
		return "", err
	}
	info, err := tpm2.Unmarshal[tpm2.TPMSAttest](object.Statement.CertInfo)
	if err != nil {
		return "", err
	}
	certified, err := info.Attested.Certify()
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(certified.Name.Buffer), nil
}

// String returns the view on several lines.
func (v *evidenceView) String() string {
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if v.EK != "" {
		line("endorsement key:  %.16s…, certified by %q", v.EK, v.EKIssuer)
	}
	if v.AKName != "" {
		enrolled := ""
		if v.Enrolled {
			enrolled = ", enrolled by credential activation"
		}
		line("attestation key:  %.16s…%s", v.AKName, enrolled)
	}
	line("TPM2_Certify:     the Client Instance Key %.16s… is in this TPM", v.KeyName)
	if len(v.PCRs) > 0 {
		line("TPM2_Quote:       PCRs %s", strings.ReplaceAll(strings.Trim(fmt.Sprint(v.PCRs), "[]"), " ", ", "))
		line("boot log:         %d events", v.Events)
	}
	return strings.Join(lines, "\n")
}
