// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/base64"
	"errors"

	"github.com/google/go-attestation/attest"
)

// Profile is the eat_profile of attestations with evidence (RFC 9711, section
// 6): the claims below. PROTOCOL.md describes them. It is a URL of this project, to
// be compared and not to be fetched.
const Profile = "https://github.com/instancekey/instancekey#client-attestation-1"

// A Status is a verdict on a device, in the terms of EAR
// (draft-ietf-rats-ear): the ear_status of an appraisal.
type Status string

// Statuses, from best to worst.
const (
	None            Status = "none" // nothing was looked at
	Affirming       Status = "affirming"
	Warning         Status = "warning"
	Contraindicated Status = "contraindicated"
)

// worse orders statuses; None is not comparable and loses.
func worse(a, b Status) Status {
	order := map[Status]int{None: 0, Affirming: 1, Warning: 2, Contraindicated: 3}
	if order[b] > order[a] {
		return b
	}
	return a
}

// Values of a trustworthiness vector (draft-ietf-rats-ar4si, section 2.3.4).
const (
	recognizedInstance = 2 // instance-identity
	genuineHardware    = 2 // hardware
	hardwareKeys       = 2 // storage-opaque
	approvedConfig     = 2 // configuration
	unsafeConfig       = 32
	approvedBoot       = 3 // executables
	unsafeBoot         = 32
	unrecognizedBoot   = 33
	rejectedBoot       = 96
)

// A boot is what a device has proved of its boot.
type boot struct {
	pcrs   map[int][]byte
	events []attest.Event // nil without a log
	hasLog bool
}

// A judgement is what the reference values say of a boot.
type judgement struct {
	release *release // nil: none that is known
	// oemboot is nil if the reference values don't look at it; notOEM is why it
	// is false, for the log.
	oemboot *bool
	notOEM  error
	notes   []string // what else the boot log says, for the log
}

// judge compares a boot with the reference values. The error is a refusal by
// policy.
func (r *Reference) judge(b *boot) (*judgement, error) {
	if r.needsLog() && !b.hasLog {
		return nil, refuse(CodePlatformEvidenceRequired, "no tcgEventLog, and the reference values need it")
	}
	j := &judgement{release: r.find(b.pcrs, b.events)}
	switch {
	case j.release == nil && !r.attestUnknown:
		return nil, refuse(CodePolicyViolation, "PCRs match no reference values: %s", r.nearest(b.pcrs, b.events))
	case j.release != nil && j.release.refused:
		return nil, refuse(CodePolicyViolation, "%s %s is refused (line %d of the reference values)", j.release.name, j.release.version, j.release.line)
	}
	if j.release != nil && j.release.oemboot != nil {
		j.oemboot, j.notOEM = j.release.oemboot, errors.New("says the reference value")
	} else if r.authorities != nil {
		j.notes, j.notOEM = secureBoot(b.events, r.authorities)
		on := j.notOEM == nil
		j.oemboot = &on
	}
	if j.oemboot != nil && !*j.oemboot && !r.attestWithoutSecureBoot {
		return nil, refuse(CodePolicyViolation, "Secure Boot: %v", j.notOEM)
	}
	return j, nil
}

// deviceClaims are the claims of RFC 9711 about the device's model. Their source
// is the registry, never the device.
func deviceClaims(device Device) map[string]any {
	claims := map[string]any{"eat_profile": Profile}
	if !device.Listed {
		return claims
	}
	if device.Model.OEMID != nil {
		claims["oemid"] = device.Model.OEMID
	}
	claims["hwmodel"] = base64.RawURLEncoding.EncodeToString([]byte(device.Model.Hardware))
	if device.Model.Version != "" {
		claims["hwversion"] = []string{device.Model.Version}
	}
	return claims
}

// addPlatformClaims adds the claims about what was booted, and the verdict.
func (r *Reference) addPlatformClaims(claims map[string]any, device Device, endorsement *Endorsement, j *judgement) {
	status := Affirming
	vector := map[string]int{"storage-opaque": hardwareKeys}
	if endorsement.by() == endorsedByMaker {
		vector["hardware"] = genuineHardware
	}
	if device.Listed {
		vector["instance-identity"] = recognizedInstance
	}

	results := [][]string{{"software", "fail"}}
	vector["executables"] = unrecognizedBoot
	if j.release == nil {
		status = Contraindicated
	} else {
		results[0][1] = "success"
		claims["swname"] = j.release.name
		claims["swversion"] = []string{j.release.version}
		status = worse(status, j.release.status)
		vector["executables"] = map[Status]int{
			Affirming: approvedBoot, Warning: unsafeBoot, Contraindicated: rejectedBoot,
		}[j.release.status]
	}

	if j.oemboot != nil {
		claims["oemboot"] = *j.oemboot
		if *j.oemboot {
			results = append(results, []string{"secure-boot", "success"})
			vector["configuration"] = approvedConfig
		} else {
			results = append(results, []string{"secure-boot", "fail"})
			vector["configuration"] = unsafeConfig
			status = worse(status, Warning)
		}
	}

	claims["measres"] = [][]any{{"tpm-measured-boot", results}}
	claims["submods"] = map[string]any{"platform": map[string]any{
		"ear_status":                 status,
		"ear_trustworthiness_vector": vector,
		"ear_appraisal_policy_ids":   []string{r.policy},
	}}
}
