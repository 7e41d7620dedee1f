// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// step returns what was seen of a step, nil if it did not run.
func (a Act) step(id StepID) *Step {
	for i := range a.Steps {
		if a.Steps[i].ID == id {
			return &a.Steps[i]
		}
	}
	return nil
}

// state is how a step is drawn.
func (a Act) state(id StepID) string {
	s := a.step(id)
	switch {
	case a.Failure != nil && a.Failure.Step == id:
		return "failed"
	case s != nil && (s.Count > 0 || s.Requests > 0 || s.TPM > 0):
		return "ran"
	}
	return "idle"
}

func (a Act) stateInWords(id StepID) string {
	s := a.step(id)
	switch a.state(id) {
	case "failed":
		return "It has stopped the run."
	case "ran":
		return "It ran" + times(s.Count) + "."
	}
	return "It did not run."
}

func times(n int) string {
	if n <= 1 {
		return ""
	}
	return " " + grouped(n) + " times"
}

// inWords tells the run in words.
func inWords(a Act) string {
	var text strings.Builder
	for _, s := range steps {
		if s.id == Metadata || s.id == ResourceCall {
			continue
		}
		if ran := a.step(s.id); a.state(s.id) != "idle" {
			fmt.Fprintf(&text, "(%s) %s", s.id, strings.ToUpper(s.title[:1])+s.title[1:])
			if ran != nil {
				if fact := factOf(a, ran); fact != "" {
					fmt.Fprintf(&text, " (%s)", fact)
				}
			}
			text.WriteString(". ")
		}
	}
	if a.Failure != nil {
		fmt.Fprintf(&text, "The run was stopped at %s.", label(a.Failure.Step))
	}
	return strings.TrimSpace(cmp.Or(text.String(), "No step ran."))
}

// factOf says in a few words what was in a step's messages; of no time or place, so that
// it is the same in each run of the same device.
func factOf(act Act, s *Step) string {
	jwt, m := s.lastJWT()
	switch s.ID {
	case CreateKey:
		return m.field("alg")
	case SendEvidence:
		if e := s.evidence(); e != nil && len(e.PCRs) > 0 {
			return "PCRs " + e.numbers() + ", boot log"
		} else if e != nil {
			return "of the key"
		}
		return "signed with the key"
	case VerifyEvidence:
		if d := act.step(Attestation); d != nil {
			token, _ := d.lastJWT()
			if status := statusOf(token); status != "" {
				return "verdict: " + status
			}
		}
	case Attestation, Provisioned:
		return jwt.device()
	case MakeProof:
		return jwt.claimNames()
	case SendProof:
		return m.field("grant_type")
	case Answer:
		if kind := m.field("token_type"); kind != "" {
			return kind + " token"
		}
		return m.field("error")
	}
	return ""
}

// timesOf says in a few words how long a step took.
func timesOf(s *Step) string {
	var parts []string
	if s.Count > 1 {
		parts = append(parts, "×"+grouped(s.Count))
	}
	if total := s.TPM + s.Network + s.Waiting; total > 0 {
		parts = append(parts, total.String())
	}
	return strings.Join(parts, separator)
}

// separator stands between what is said of a step.
const separator = " · "

// lastJWT returns the last JWT of a step, and the last message that was received or
// made, zero if there is none.
func (s *Step) lastJWT() (JWT, Message) {
	var token JWT
	var message Message
	for _, m := range s.Messages {
		message = m
		if len(m.JWTs) > 0 {
			token = m.JWTs[0]
		}
	}
	return token, message
}

func (s *Step) evidence() *Evidence {
	for _, m := range s.Messages {
		if m.Evidence != nil {
			return m.Evidence
		}
	}
	return nil
}

// numbers are those of the PCRs.
func (e *Evidence) numbers() string {
	var all []string
	for _, p := range e.PCRs {
		all = append(all, strconv.Itoa(p.Number))
	}
	return strings.Join(all, ", ")
}

func (m Message) field(name string) string {
	for _, f := range slices.Concat(m.Body, m.Header) {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (t JWT) claim(name string) string {
	for _, f := range t.Claims {
		if f.Name == name {
			return f.text()
		}
	}
	return ""
}

// device is what an attestation says of the device, in a few words.
func (t JWT) device() string {
	model, err := base64.RawURLEncoding.DecodeString(t.claim("hwmodel"))
	if err != nil || len(model) == 0 {
		return ""
	}
	return bounded(string(model))
}

// statusOf is an attester's verdict in one word.
func statusOf(t JWT) string {
	for _, line := range verdictOf(t) {
		if _, status, found := strings.Cut(line.Text, "Verdict on the "); found {
			_, status, _ = strings.Cut(status, ": ")
			return status
		}
	}
	return ""
}

func (t JWT) claimNames() string {
	var all []string
	for _, f := range byMeaning(t.Claims) {
		all = append(all, f.Name)
	}
	if len(all) > 4 {
		all = append(all[:4], "…")
	}
	return strings.Join(all, ", ")
}

// byMeaning returns fields in the order of what they are for.
func byMeaning(fields []Field) []Field {
	sorted := slices.Clone(fields)
	slices.SortStableFunc(sorted, func(a, b Field) int {
		_, x := meaning(a.Name)
		_, y := meaning(b.Name)
		return cmp.Or(x-y, strings.Compare(a.Name, b.Name))
	})
	return sorted
}

// String is for people: 0.4 ms, 12 ms, 1.24 s.
func (m Milliseconds) String() string {
	switch {
	case m >= 10_000:
		return strconv.FormatFloat(float64(m)/1000, 'f', 1, 64) + " s"
	case m >= 1000:
		return strconv.FormatFloat(float64(m)/1000, 'f', 2, 64) + " s"
	case m >= 10:
		return strconv.FormatFloat(float64(m), 'f', 0, 64) + " ms"
	default:
		return strconv.FormatFloat(float64(m), 'f', 1, 64) + " ms"
	}
}

// grouped returns a number with thin spaces between thousands.
func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}
