// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/evidencereport"
	"github.com/instancekey/instancekey/examples/internal/jwtview"
)

// reporting is -report.
type reporting struct {
	file, title string // file is "" if there is to be no report
	recorders   []*report.Recorder
}

func newReporting(file, told string) *reporting {
	title := "A device gets a token"
	if told == "firmware" {
		title = "What firmware has to do with tokens"
	}
	return &reporting{file: file, title: title}
}

// check finds out before the run whether the file can be written.
func (r *reporting) check() error {
	if r.file == "" {
		return nil
	}
	info, err := os.Stat(filepath.Dir(r.file))
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", filepath.Dir(r.file))
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(r.file); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder", r.file)
	}
	return nil
}

// act begins the next act.
func (r *reporting) act(title, store string) *report.Recorder {
	recorder := report.NewRecorder(report.Options{
		Title:    title,
		Facts:    []report.Field{{Name: "key store", Value: store}},
		Software: store == "soft",
		Evidence: evidencereport.Read,
	})
	r.recorders = append(r.recorders, recorder)
	return recorder
}

// write writes the report, also of a run that has failed.
func (r *reporting) write() error {
	if r.file == "" {
		return nil
	}
	d := report.Document{Title: r.title, Program: "quickstart"}
	for i, recorder := range r.recorders {
		if i == 0 {
			d.Began = recorder.Began()
		}
		d.Acts = append(d.Acts, recorder.Act())
	}
	return d.WriteFile(r.file)
}

// verdicts tells the report what the servers have decided, which run in this process:
// the attester by its log, the authorization server by its log and its policy.
type verdicts struct {
	recorder *report.Recorder
	policy   []byte // the authorization server's; nil: none
	now      func() time.Time

	mu          sync.Mutex
	attestation string // that the policy is applied to
}

// attested is told the attestation.
func (v *verdicts) attested(attestation string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.attestation = attestation
}

func newVerdicts(recorder *report.Recorder, policy []byte) *verdicts {
	return &verdicts{recorder: recorder, policy: policy, now: time.Now}
}

// attester tells what the Client Attester has logged.
func (v *verdicts) attester(record map[string]string) {
	if reason := record["reason"]; reason != "" {
		v.recorder.Verdict(report.VerifyEvidence, report.Verdict{Text: "Refused: " + reason, Result: report.Fail})
		return
	}
	lines := []report.Verdict{
		{Text: "The request is signed with the key that is to be attested, over the attester’s own challenge", Result: report.Pass},
	}
	switch record["tpm_endorsement"] {
	case "certificate":
		lines = append(lines, report.Verdict{Text: "A maker of TPMs that is trusted has certified the endorsement key, and the attestation key is in the same TPM", Result: report.Pass})
	case "registry":
		lines = append(lines, report.Verdict{Text: "The registry of devices vouches for the TPM, and the attestation key is in it", Result: report.Pass})
	}
	if record["tpm_endorsement"] != "" {
		lines = append(lines, report.Verdict{Text: "TPM2_Certify: the key is in that TPM and cannot leave it", Result: report.Pass})
	}
	for _, detail := range []struct{ name, says string }{{"firmware_version", "Firmware: "}, {"secure_boot", "Secure Boot: "}, {"boot_log", "Boot log: "}} {
		if value := record[detail.name]; value != "" {
			lines = append(lines, report.Verdict{Text: detail.says + value, Result: report.Note})
		}
	}
	v.recorder.Verdict(report.VerifyEvidence, lines...)
}

// server tells what the authorization server has logged, and what each rule of its
// policy makes of the attestation.
func (v *verdicts) server(record map[string]string) {
	var lines []report.Verdict
	if record["rule"] == "" || record["rule"] == "policy" {
		lines = append(lines, report.Verdict{
			Text:   "Both JWTs are genuine: signatures, types, audience, times, challenge; and the key of the PoP JWT is the attested one",
			Result: report.Pass,
		})
		lines = append(lines, v.findings()...)
	}
	if reason := record["reason"]; reason != "" {
		lines = append(lines, report.Verdict{Text: "Refused with " + record["error"] + ": " + reason, Result: report.Fail})
	}
	v.recorder.Verdict(report.Answer, lines...)
}

func (v *verdicts) findings() (lines []report.Verdict) {
	if v.policy == nil {
		return nil
	}
	policy, err := authserver.ParsePolicy(v.policy)
	if err != nil {
		return nil // the server would not have started with it
	}
	v.mu.Lock()
	attestation := v.attestation
	v.mu.Unlock()
	view, err := jwtview.Decode(attestation)
	if err != nil {
		return nil
	}
	var claims struct {
		IssuedAt int64 `json:"iat"`
	}
	if json.Unmarshal(view.Claims, &claims) != nil {
		return nil
	}
	findings, err := policy.Explain(view.Claims, time.Unix(claims.IssuedAt, 0), v.now())
	if err != nil {
		return nil
	}
	for _, f := range findings {
		line := report.Verdict{Text: "Policy: " + f.Rule, Result: report.Pass}
		if f.Err != nil {
			line = report.Verdict{Text: "Policy: " + f.Rule + "; but " + f.Err.Error(), Result: report.Fail}
		}
		lines = append(lines, line)
	}
	return lines
}
