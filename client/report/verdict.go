// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// appraised are the parts of an attester's verdict, and what they are about
// (draft-ietf-rats-ar4si, section 2.3).
var appraised = map[string]string{
	"instance-identity": "the device is one that is known",
	"configuration":     "its configuration, Secure Boot among it, is approved",
	"executables":       "what it has booted is approved",
	"file-system":       "its files are approved",
	"hardware":          "its TPM is genuine",
	"runtime-opaque":    "its memory is protected",
	"storage-opaque":    "its keys are kept in hardware",
	"sourced-data":      "its data comes from where it should",
}

// tier is what a value of a trustworthiness vector comes to (draft-ietf-rats-ar4si,
// section 2.3.2).
func tier(value int) (string, Result) {
	switch {
	case value >= 2 && value <= 31:
		return "affirming", Pass
	case value >= 32 && value <= 95:
		return "warning", Note
	case value >= 96 && value <= 127:
		return "contraindicated", Fail
	}
	return "no word", Note
}

// verdictOf reads an attester's verdict in the claims of an attestation.
func verdictOf(attestation JWT) []Verdict {
	at := slices.IndexFunc(attestation.Claims, func(f Field) bool { return f.Name == "submods" })
	if at < 0 {
		return nil
	}
	var submods map[string]struct {
		Status string         `json:"ear_status"`
		Vector map[string]int `json:"ear_trustworthiness_vector"`
	}
	if json.Unmarshal([]byte(attestation.Claims[at].Value), &submods) != nil {
		return nil
	}
	var lines []Verdict
	for _, name := range slices.Sorted(maps.Keys(submods))[:min(len(submods), 4)] {
		part := submods[name]
		for _, dimension := range slices.Sorted(maps.Keys(part.Vector))[:min(len(part.Vector), maxFields)] {
			value := part.Vector[dimension]
			said, result := tier(value)
			text := fmt.Sprintf("%s %d: %s", dimension, value, said)
			if about := appraised[dimension]; about != "" && result == Pass {
				text = fmt.Sprintf("%s (%s %d)", strings.ToUpper(about[:1])+about[1:], dimension, value)
			}
			lines = append(lines, Verdict{Text: text, Result: result})
		}
		if part.Status != "" {
			result := map[string]Result{"affirming": Pass, "contraindicated": Fail}[part.Status]
			if result == "" {
				result = Note
			}
			lines = append(lines, Verdict{Text: "Verdict on the " + name + ": " + part.Status, Result: result})
		}
	}
	return lines
}
