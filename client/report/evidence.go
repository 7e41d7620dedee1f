// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// takeEvidence takes the evidence out of a request to an attester: a claim that for
// people is only long. It returns what it says, nil if there is none.
func (x *exchange) takeEvidence(compact string, token *JWT) *Evidence {
	at := slices.IndexFunc(token.Claims, func(f Field) bool { return f.Name == "evidence" })
	if at < 0 {
		return nil
	}
	_, payload, _ := strings.Cut(compact, ".")
	payload, _, _ = strings.Cut(payload, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Evidence json.RawMessage `json:"evidence"`
	}
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		return nil
	}
	token.Claims[at] = Field{Name: "evidence", Value: "see below", Hidden: len(claims.Evidence)}
	if read := x.recorder.options.Evidence; read != nil {
		if found, err := read(claims.Evidence); err == nil && found != nil {
			return found.bounded()
		}
	}
	return sizes(claims.Evidence)
}

// sizes is what this package reads of evidence: the PCRs, and how large the rest is.
func sizes(evidence []byte) *Evidence {
	var message struct {
		Statement string `json:"attObj"`
		TPM       struct {
			Quotes []struct {
				PCRs   map[string][]byte `json:"pcrValues"`
				Quoted []byte            `json:"rawQuote"`
			} `json:"quotes"`
			EventLog []byte `json:"tcgEventLog"`
		} `json:"tpmAttestation"`
	}
	if json.Unmarshal(evidence, &message) != nil {
		return nil
	}
	size := func(n int) []Field { return []Field{{Name: "size", Value: fmt.Sprintf("%d bytes", n)}} }
	found := &Evidence{Parts: []EvidencePart{{
		Title: "TPM2_Certify: the key is in this TPM", Fields: size(base64.RawURLEncoding.DecodedLen(len(message.Statement))),
	}}}
	for _, quote := range message.TPM.Quotes {
		found.Parts = append(found.Parts, EvidencePart{Title: "TPM2_Quote: what was measured", Fields: size(len(quote.Quoted))})
		for _, name := range slices.Sorted(maps.Keys(quote.PCRs)) {
			if number, err := strconv.Atoi(name); err == nil {
				found.PCRs = append(found.PCRs, PCR{number, hex.EncodeToString(quote.PCRs[name])})
			}
		}
	}
	if n := len(message.TPM.EventLog); n > 0 {
		found.Parts = append(found.Parts, EvidencePart{Title: "Boot log", Fields: size(n)})
	}
	return found.bounded()
}

const maxEvents = 100 // of a boot log

// bounded returns no more than a page has room for.
func (e *Evidence) bounded() *Evidence {
	out := *e
	out.Parts = slices.Clone(e.Parts[:min(len(e.Parts), maxFields)])
	for i, part := range out.Parts {
		fields := slices.Clone(part.Fields[:min(len(part.Fields), maxFields)])
		for j, f := range fields {
			if fields[j].Value = bounded(f.Value); isIdentifier(f.Name) {
				fields[j].Value = shortened(f.Value)
			}
		}
		out.Parts[i] = EvidencePart{Title: bounded(part.Title), Fields: fields}
	}
	out.PCRs = slices.Clone(e.PCRs[:min(len(e.PCRs), maxFields)])
	slices.SortFunc(out.PCRs, func(a, b PCR) int { return a.Number - b.Number })
	kept := min(len(e.Events), maxEvents)
	out.Events = slices.Clone(e.Events[:kept])
	out.MoreEvents += len(e.Events) - kept
	for i := range out.Events {
		out.Events[i].Type, out.Events[i].Digest = bounded(out.Events[i].Type), bounded(out.Events[i].Digest)
	}
	return &out
}
