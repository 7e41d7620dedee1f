// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/instancekey/instancekey/examples/internal/eat"
	"github.com/instancekey/instancekey/examples/internal/strictjson"
	"github.com/instancekey/instancekey/examples/internal/strictjwt"
)

// A Policy decides by what an attestation says of the device: step (5). It is
// not changed after it was made.
type Policy struct {
	file   policyFile
	maxAge time.Duration
}

// policyFile is the form of a policy on disk. What is left out is not looked at.
type policyFile struct {
	// Models are those that get tokens.
	Models []struct {
		OEMID    any    `json:"oemid"`   // a number or a string, as in the claim; left out: any
		Hardware string `json:"hwmodel"` // as text, and not in base64url as in the claim
	} `json:"models"`
	// MinimumVersions has the software that gets tokens, by its swname, and
	// from which version on.
	MinimumVersions map[string]string `json:"minimum_versions"`
	RequireOEMBoot  bool              `json:"require_oemboot"`
	// Statuses are the values of ear_status that get tokens.
	Statuses []string `json:"ear_status"`
	// Endorsements are the values of tpm_endorsement that get tokens: who vouches
	// for the TPM.
	Endorsements []string `json:"tpm_endorsement"`
	// MaxAge is how long ago the attestation may have been issued, such as "1h".
	MaxAge string `json:"max_age"`
}

// LoadPolicy reads a policy from a JSON file. Unknown members are refused: a
// rule that is misspelt would be no rule.
func LoadPolicy(name string) (*Policy, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("authserver: policy: %w", err)
	}
	policy, err := ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, name)
	}
	return policy, nil
}

// ParsePolicy reads a policy from the contents of such a file.
func ParsePolicy(text []byte) (*Policy, error) {
	var p Policy
	lines, err := strictjson.Unmarshal(text, &p.file)
	if err == nil {
		err = p.check(lines)
	}
	if err != nil {
		return nil, fmt.Errorf("authserver: policy: %w", err)
	}
	return &p, nil
}

// check refuses rules that could never be met or have no effect.
func (p *Policy) check(lines strictjson.Lines) error {
	f := &p.file
	for i, model := range f.Models {
		at := fmt.Sprintf("models[%d]", i)
		if model.Hardware == "" {
			return lines.Errorf(at, "without hwmodel")
		}
		if err := eat.CheckHardwareModel(model.Hardware); err != nil {
			return lines.Errorf(at+".hwmodel", "%.80q: %w", model.Hardware, err)
		}
		if err := eat.CheckOEMID(model.OEMID); err != nil {
			return lines.Errorf(at+".oemid", "%.80q: %w", model.Hardware, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.MinimumVersions)) {
		at := "minimum_versions." + name
		if name == "" {
			return lines.Errorf("minimum_versions", "has an entry without a swname: it would let pass what has none")
		}
		if _, err := parseVersion(f.MinimumVersions[name]); err != nil {
			return lines.Errorf(at, "minimum version of %q: %w", name, err)
		}
	}
	for i, status := range f.Statuses {
		if !slices.Contains([]string{"none", "affirming", "warning", "contraindicated"}, status) {
			return lines.Errorf(fmt.Sprintf("ear_status[%d]", i), "ear_status %q: there is none, affirming, warning and contraindicated", status)
		}
	}
	for i, by := range f.Endorsements {
		if !slices.Contains([]string{"certificate", "registry"}, by) {
			return lines.Errorf(fmt.Sprintf("tpm_endorsement[%d]", i), "tpm_endorsement %q: there is certificate and registry", by)
		}
	}
	if f.MaxAge != "" {
		var err error
		if p.maxAge, err = time.ParseDuration(f.MaxAge); err != nil {
			return lines.Errorf("max_age", "max_age: %w", err)
		}
		if p.maxAge <= 0 {
			return lines.Errorf("max_age", "max_age is not positive")
		}
	}
	if f.Models == nil && f.MinimumVersions == nil && !f.RequireOEMBoot && f.Statuses == nil && f.Endorsements == nil && f.MaxAge == "" {
		return errors.New("it has no rules")
	}
	return nil
}

// deviceClaims are the claims about the device that issued attestations may
// have: EAT (RFC 9711), and in submods.platform an appraisal of EAR
// (draft-ietf-rats-ear).
type deviceClaims struct {
	OEMID    any    `json:"oemid"`
	Hardware string `json:"hwmodel"` // base64url
	Software string `json:"swname"`
	Version  []any  `json:"swversion"` // version, and perhaps its scheme
	OEMBoot  bool   `json:"oemboot"`

	Endorsement string `json:"tpm_endorsement"`
	Submods     struct {
		Platform struct {
			Status string `json:"ear_status"`
		} `json:"platform"`
	} `json:"submods"`
}

const rulePolicy = "policy"

// readDevice decodes the claims about the device in an attestation's payload.
func readDevice(payload []byte) (*deviceClaims, error) {
	var device deviceClaims
	if err := strictjwt.Decode(payload, &device); err != nil {
		return nil, refuse(errInvalidClientAttestation, rulePolicy, "claims about the device: %v", err)
	}
	return &device, nil
}

// appraise applies the policy to a client instance that has authenticated: step
// (5). Only if nothing but its age speaks against an attestation would a fresh one
// help. Without a policy the claims about the device are not looked at: their form
// is another attester's business.
func (a *verifiedAttestation) appraise(now time.Time) error {
	p := a.trust.policy
	if p == nil {
		return nil
	}
	device, err := a.device()
	if err != nil {
		return err
	}
	for _, rule := range p.rules() {
		if err := rule.check(device); err != nil {
			return refuse(errInvalidClientAttestation, rulePolicy, "%v", err)
		}
	}
	if p.maxAge != 0 && now.Sub(a.issuedAt) > p.maxAge {
		return refuse(errUseFreshAttestation, rulePolicy, "attestation is older than %v", p.maxAge)
	}
	return nil
}

// A rule is a part of a policy.
type rule struct {
	says  string // what it demands; "" if the policy does not have it
	check func(*deviceClaims) error
}

// rules are those about the device, in the order in which they are looked at.
func (p *Policy) rules() []rule {
	models := []string{}
	for _, model := range p.file.Models {
		models = append(models, model.Hardware)
	}
	least := []string{}
	for _, name := range slices.Sorted(maps.Keys(p.file.MinimumVersions)) {
		least = append(least, name+" "+p.file.MinimumVersions[name])
	}
	says := func(has bool, format string, words []string) string {
		if !has {
			return ""
		}
		return fmt.Sprintf(format, strings.Join(words, ", "))
	}
	return []rule{
		{says(p.file.Models != nil, "the model is one of: %s", models), p.checkModel},
		{says(p.file.MinimumVersions != nil, "the software is at least: %s", least), p.checkVersion},
		{says(p.file.RequireOEMBoot, "the device has booted its maker's software (%s)", []string{"oemboot"}), p.checkOEMBoot},
		{says(p.file.Statuses != nil, "the attester's verdict is one of: %s", p.file.Statuses), p.checkStatus},
		{says(p.file.Endorsements != nil, "who vouches for the TPM is one of: %s", p.file.Endorsements), p.checkEndorsement},
	}
}

// A Finding is what a rule of a policy makes of a device.
type Finding struct {
	Rule string // what it demands
	Err  error  // why the device is refused by it; nil: it is not
}

// Explain says line by line what the policy makes of an attestation's payload, issued
// at that time: as [Server] decides, which stops at the first rule that refuses.
func (p *Policy) Explain(payload []byte, issuedAt, now time.Time) ([]Finding, error) {
	device, err := readDevice(payload)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	for _, rule := range p.rules() {
		if rule.says != "" {
			findings = append(findings, Finding{rule.says, rule.check(device)})
		}
	}
	if p.maxAge != 0 {
		finding := Finding{Rule: fmt.Sprintf("the attestation is no older than %v", p.maxAge)}
		if age := now.Sub(issuedAt); age > p.maxAge {
			finding.Err = fmt.Errorf("it is %v old", age.Round(time.Second))
		}
		findings = append(findings, finding)
	}
	return findings, nil
}

func (p *Policy) checkModel(device *deviceClaims) error {
	if p.file.Models == nil {
		return nil
	}
	hardware, err := base64.RawURLEncoding.DecodeString(device.Hardware)
	if err != nil || len(hardware) == 0 {
		return errors.New("no hwmodel")
	}
	for _, model := range p.file.Models {
		if model.Hardware == string(hardware) && (model.OEMID == nil || model.OEMID == device.OEMID) {
			return nil
		}
	}
	return fmt.Errorf("model %q of %v is not one that gets tokens", hardware, device.OEMID)
}

func (p *Policy) checkVersion(device *deviceClaims) error {
	if p.file.MinimumVersions == nil {
		return nil
	}
	minimum, ok := p.file.MinimumVersions[device.Software]
	if !ok {
		return fmt.Errorf("software %.80q is not one that gets tokens", device.Software)
	}
	if len(device.Version) == 0 {
		return fmt.Errorf("%s: no swversion", device.Software)
	}
	version, _ := device.Version[0].(string)
	got, err := parseVersion(version)
	if err != nil {
		return fmt.Errorf("%s: %w", device.Software, err)
	}
	want, err := parseVersion(minimum)
	if err != nil {
		return err
	}
	if slices.Compare(got, want) < 0 {
		return fmt.Errorf("%s has the version %s, and %s is the least", device.Software, version, minimum)
	}
	return nil
}

// parseVersion reads a version that can be ordered: numbers with points between
// them. Trailing zeros don't count: 2.0 is 2.
func parseVersion(text string) ([]uint64, error) {
	var parts []uint64
	for part := range strings.SplitSeq(text, ".") {
		number, err := strconv.ParseUint(part, 10, 64) // no sign, no spaces
		if err != nil {
			return nil, fmt.Errorf("version %.80q is not numbers with points between them", text)
		}
		parts = append(parts, number)
	}
	for len(parts) > 0 && parts[len(parts)-1] == 0 {
		parts = parts[:len(parts)-1]
	}
	return parts, nil
}

func (p *Policy) checkOEMBoot(device *deviceClaims) error {
	if p.file.RequireOEMBoot && !device.OEMBoot {
		return errors.New("oemboot is not true: the device did not boot its maker's software")
	}
	return nil
}

func (p *Policy) checkStatus(device *deviceClaims) error {
	status := device.Submods.Platform.Status
	if p.file.Statuses != nil && !slices.Contains(p.file.Statuses, status) {
		return fmt.Errorf("ear_status is %.40q", status)
	}
	return nil
}

func (p *Policy) checkEndorsement(device *deviceClaims) error {
	if p.file.Endorsements != nil && !slices.Contains(p.file.Endorsements, device.Endorsement) {
		return fmt.Errorf("tpm_endorsement is %.40q", device.Endorsement)
	}
	return nil
}
