package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/go-attestation/attest"

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

	attestUnknown           bool
	attestWithoutSecureBoot bool
}

// A release is one version of a device's software, and how to recognize it.
type release struct {
	name, version string
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

	AttestUnknown           bool `json:"attest_unknown_software"`
	AttestWithoutSecureBoot bool `json:"attest_without_secure_boot"`
}

// LoadReference reads reference values from a JSON file. See PROTOCOL.md for its
// form.
func LoadReference(name string) (*Reference, error) { return load(name, ParseReference) }

// ParseReference reads reference values from the contents of such a file.
func ParseReference(text []byte) (*Reference, error) {
	var file referenceFile
	if err := strictjson.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("evidence: reference values: %w", err)
	}
	reference, err := newReference(&file)
	if err != nil {
		return nil, fmt.Errorf("evidence: reference values: %w", err)
	}
	return reference, nil
}

func newReference(file *referenceFile) (*Reference, error) {
	r := &Reference{
		policy:                  file.Policy,
		pcrs:                    slices.Sorted(slices.Values(file.PCRs)),
		attestUnknown:           file.AttestUnknown,
		attestWithoutSecureBoot: file.AttestWithoutSecureBoot,
	}
	switch {
	case r.policy == "":
		return nil, errors.New("policy has no name")
	case len(r.pcrs) == 0 || r.pcrs[0] < 0 || r.pcrs[len(r.pcrs)-1] > 15:
		// Software can reset the others.
		return nil, errors.New("pcrs is empty, or has a PCR that is not 0 to 15")
	case len(slices.Compact(slices.Clone(r.pcrs))) != len(r.pcrs):
		return nil, errors.New("pcrs has a PCR twice")
	}
	for _, text := range file.Authorities {
		digest, err := parseDigest(text)
		if err != nil {
			return nil, fmt.Errorf("secure_boot_authorities: %w", err)
		}
		r.authorities = append(r.authorities, digest)
	}
	if r.authorities != nil && !slices.Contains(r.pcrs, 7) {
		return nil, errors.New("secure_boot_authorities needs PCR 7 among pcrs")
	}
	for _, s := range file.Software {
		entry := release{name: s.Name, version: s.Version, oemboot: s.OEMBoot, status: Status(s.Verdict)}
		if s.Verdict == "refused" {
			entry.status, entry.refused = Contraindicated, true
		}
		var err error
		if entry.pcrs, err = parsePCRMap(s.PCRs, r.pcrs, parseDigest); err == nil {
			entry.firstEvents, err = parsePCRMap(s.FirstEvents, r.pcrs, parseDigests)
		}
		if err == nil {
			err = entry.check()
		}
		if err != nil {
			return nil, fmt.Errorf("software %q %q: %w", s.Name, s.Version, err)
		}
		r.software = append(r.software, entry)
	}
	return r, nil
}

func (s *release) check() error {
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

func parseDigests(list []string) (digests [][]byte, err error) {
	for _, text := range list {
		digest, err := parseDigest(text)
		if err != nil {
			return nil, err
		}
		digests = append(digests, digest)
	}
	if digests == nil {
		return nil, errors.New("no digests: every device would match")
	}
	return digests, nil
}

// needsLog reports whether PCR values alone can't be judged.
func (r *Reference) needsLog() bool {
	return r.authorities != nil || slices.ContainsFunc(r.software, func(s release) bool { return len(s.firstEvents) > 0 })
}

// find returns the first release that fits; nil if none does.
func (r *Reference) find(pcrs map[int][]byte, events []attest.Event) *release {
	for i := range r.software {
		if r.software[i].fits(pcrs, events) {
			return &r.software[i]
		}
	}
	return nil
}

// fits compares all that the release has. Of a PCR's events the first ones
// count: later ones may have been measured by software that one of them
// started, and such software can repeat a digest, but not come before it.
func (s *release) fits(pcrs map[int][]byte, events []attest.Event) bool {
	for index, want := range s.pcrs {
		if !bytes.Equal(pcrs[index], want) {
			return false
		}
	}
	for index, want := range s.firstEvents {
		got := digestsOf(events, index)
		if len(got) < len(want) || !slices.EqualFunc(got[:len(want)], want, bytes.Equal) {
			return false
		}
	}
	return true
}
