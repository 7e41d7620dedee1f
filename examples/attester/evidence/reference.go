// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/instancekey/instancekey/examples/internal/strictjson"
)

// A Reference says what devices should have booted: the vendor's reference
// values, and what to do about everything else. It is not changed after it was
// made.
type Reference struct {
	policy      string // names the policy in attestations
	pcrs        []int  // those to be quoted, in ascending order
	software    []release
	authorities [][]byte // for Secure Boot; nil: not looked at

	userspaceLog, imaLog bool // are demanded

	attestUnknown           bool
	attestWithoutSecureBoot bool
}

// A release is one version of a device's software, and how to recognize it.
type release struct {
	name, version string
	line          int // in the file
	status        Status
	refused       bool
	oemboot       *bool // nil: these values don't say

	pcrs        map[int][]byte   // each of them has this value
	firstEvents map[int][][]byte // each of them begins with these digests
}

// referenceFile is the form of reference values on disk.
type referenceFile struct {
	Policy   string `json:"policy"`
	PCRs     []int  `json:"pcrs"`
	Software []struct {
		Name    string `json:"swname"`
		Version string `json:"swversion"`
		Verdict string `json:"verdict"` // a Status, or "refused"
		OEMBoot *bool  `json:"oemboot"`

		PCRs        map[string]string   `json:"pcrs"`         // hexadecimal, by the PCR's number
		FirstEvents map[string][]string `json:"first_events"` // hexadecimal, by the PCR's number
	} `json:"software"`
	// Authorities are SHA-256 digests of the certificates that Secure Boot may
	// let software pass for.
	Authorities []string `json:"secure_boot_authorities"`
	// These are "required", or "ignored", as if left out.
	UserspaceLog string `json:"userspace_log"`
	IMALog       string `json:"ima_log"`

	AttestUnknown           bool `json:"attest_unknown_software"`
	AttestWithoutSecureBoot bool `json:"attest_without_secure_boot"`
}

// LoadReference reads reference values from a JSON file. See PROTOCOL.md for its
// form.
func LoadReference(name string) (*Reference, error) { return load(name, ParseReference) }

// ParseReference reads reference values from the contents of such a file.
func ParseReference(text []byte) (*Reference, error) {
	var file referenceFile
	lines, err := strictjson.Unmarshal(text, &file)
	if err != nil {
		return nil, fmt.Errorf("evidence: reference values: %w", err)
	}
	reference, err := newReference(&file, lines)
	if err != nil {
		return nil, fmt.Errorf("evidence: reference values: %w", err)
	}
	return reference, nil
}

func newReference(file *referenceFile, lines strictjson.Lines) (*Reference, error) {
	r := &Reference{
		policy:                  file.Policy,
		pcrs:                    slices.Sorted(slices.Values(file.PCRs)),
		attestUnknown:           file.AttestUnknown,
		attestWithoutSecureBoot: file.AttestWithoutSecureBoot,
	}
	switch {
	case r.policy == "":
		return nil, lines.Errorf("policy", "policy has no name")
	case len(r.pcrs) == 0 || r.pcrs[0] < 0 || r.pcrs[len(r.pcrs)-1] > 15:
		// Software can reset the others.
		return nil, lines.Errorf("pcrs", "pcrs is empty, or has a PCR that is not 0 to 15")
	case len(slices.Compact(slices.Clone(r.pcrs))) != len(r.pcrs):
		return nil, lines.Errorf("pcrs", "pcrs has a PCR twice")
	case file.Authorities != nil && len(file.Authorities) == 0:
		return nil, lines.Errorf("secure_boot_authorities", "is empty: name the certificates, or leave it out if Secure Boot is not to be looked at")
	}
	for i, text := range file.Authorities {
		digest, err := parseDigest(text)
		if err != nil {
			return nil, lines.Errorf(fmt.Sprintf("secure_boot_authorities[%d]", i), "secure_boot_authorities: %w", err)
		}
		r.authorities = append(r.authorities, digest)
	}
	if r.authorities != nil && !slices.Contains(r.pcrs, 7) {
		return nil, lines.Errorf("secure_boot_authorities", "secure_boot_authorities needs PCR 7 among pcrs")
	}
	if err := r.demandLogs(file, lines); err != nil {
		return nil, err
	}
	reached := make(reachable)
	for i, s := range file.Software {
		at := fmt.Sprintf("software[%d]", i)
		entry := release{name: s.Name, version: s.Version, line: lines[at], oemboot: s.OEMBoot, status: Status(s.Verdict)}
		if s.Verdict == "refused" {
			entry.status, entry.refused = Contraindicated, true
		}
		var err error
		if entry.pcrs, err = parsePCRMap(s.PCRs, r.pcrs, parseDigest); err == nil {
			entry.firstEvents, err = parsePCRMap(s.FirstEvents, r.pcrs, parseFirstEvents)
		}
		if err == nil {
			err = entry.check(r)
		}
		if err == nil {
			err = reached.add(&entry)
		}
		if err != nil {
			return nil, lines.Errorf(at, "software %q %q: %w", s.Name, s.Version, err)
		}
		r.software = append(r.software, entry)
	}
	return r, nil
}

// demandLogs reads which of the operating system's logs a device has to send.
func (r *Reference) demandLogs(file *referenceFile, lines strictjson.Lines) error {
	for _, log := range []struct {
		member, value string
		demanded      *bool
		pcrs          []int
	}{
		{"userspace_log", file.UserspaceLog, &r.userspaceLog, userspacePCRs},
		{"ima_log", file.IMALog, &r.imaLog, []int{imaPCR}},
	} {
		*log.demanded = log.value == "required"
		quoted := slices.ContainsFunc(log.pcrs, func(index int) bool { return slices.Contains(r.pcrs, index) })
		switch {
		case !*log.demanded && log.value != "" && log.value != "ignored":
			return lines.Errorf(log.member, "%.40q is neither required nor ignored", log.value)
		case *log.demanded && !quoted:
			return lines.Errorf(log.member, "needs one of the PCRs %v among pcrs", log.pcrs)
		}
	}
	return nil
}

func (s *release) check(r *Reference) error {
	switch {
	case s.name == "" || s.version == "":
		return errors.New("swname or swversion is empty")
	case s.status != Affirming && s.status != Warning && s.status != Contraindicated:
		return fmt.Errorf("verdict %q is not affirming, warning, contraindicated or refused", s.status)
	case len(s.pcrs)+len(s.firstEvents) == 0:
		return errors.New("has neither pcrs nor first_events: every device would match")
	case s.oemboot != nil && s.pcrs[7] == nil:
		return errors.New("says oemboot, and has no value for PCR 7")
	}
	for _, index := range []int{10, 11, 15} {
		explained := r.userspaceLog
		if index == imaPCR {
			explained = r.imaLog
		}
		if s.firstEvents[index] != nil && !explained {
			return fmt.Errorf("has first_events of PCR %d, which no boot log explains: the operating system extends it, and its log is not required (ima_log for PCR 10, userspace_log for 11 and 15)", index)
		}
	}
	return nil
}

func parsePCRMap[In, Out any](file map[string]In, quoted []int, parse func(In) (Out, error)) (map[int]Out, error) {
	parsed := make(map[int]Out)
	for text, in := range file {
		index, err := strconv.Atoi(text)
		if err != nil || strconv.Itoa(index) != text || !slices.Contains(quoted, index) {
			return nil, fmt.Errorf("PCR %q is not one of pcrs", text)
		}
		if parsed[index], err = parse(in); err != nil {
			return nil, fmt.Errorf("PCR %d: %w", index, err)
		}
	}
	return parsed, nil
}

func parseDigest(text string) ([]byte, error) {
	digest, err := hex.DecodeString(text)
	if err != nil || len(digest) != sha256.Size {
		return nil, fmt.Errorf("%.80q is not a SHA-256 digest in hexadecimal", text)
	}
	return digest, nil
}

// parseFirstEvents reads a list of digests, without those that do not count.
func parseFirstEvents(list []string) (digests [][]byte, err error) {
	for _, text := range list {
		digest, err := parseDigest(text)
		if err != nil {
			return nil, err
		}
		if !isBootAttempt(digest) {
			digests = append(digests, digest)
		}
	}
	if digests == nil {
		return nil, errors.New("no digests of anything that was started: every device would match")
	}
	return digests, nil
}

// needsLog reports whether PCR values alone can't be judged.
func (r *Reference) needsLog() bool {
	byFirmware := func(index int) bool { return index != imaPCR && index != 15 }
	return r.authorities != nil || slices.ContainsFunc(r.software, func(s release) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(s.firstEvents)), byFirmware)
	})
}

// logged returns the PCRs that the boot log has to explain. What the firmware
// extends is; of the others, which operating systems extend too, those whose events
// are judged.
func (r *Reference) logged(pcrs map[int][]byte) map[int][]byte {
	logged := make(map[int][]byte)
	for index, value := range pcrs {
		judged := func(s release) bool { return s.firstEvents[index] != nil }
		if index < 8 || slices.ContainsFunc(r.software, judged) {
			logged[index] = value
		}
	}
	return logged
}
