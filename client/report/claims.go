// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/instancekey/instancekey/transport"
)

// decodeJWT reads what a JWT says. What is none says nothing, and that.
func decodeJWT(name, compact string) JWT {
	token := JWT{Name: bounded(name)}
	parts := strings.Split(strings.TrimSpace(compact), ".")
	if len(parts) != 3 {
		token.Claims = []Field{{Name: "(not a JWT in compact form)", Hidden: len(compact)}}
		return token
	}
	token.Header, token.Claims = decodePart(parts[0]), decodePart(parts[1])
	return token
}

func decodePart(part string) []Field {
	unreadable := []Field{{Name: "(not a JSON object in base64url)", Hidden: len(part)}}
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return unreadable
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) != nil {
		return unreadable
	}
	fields := []Field{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		fields = appendField(fields, Field{Name: bounded(name), Value: shownJSON(name, members[name])})
	}
	return fields
}

// clean holds all texts against a cleaner.
func (t *JWT) clean(clean func(string) string) {
	for _, fields := range [][]Field{t.Header, t.Claims} {
		for i := range fields {
			if clean(fields[i].Name) == repeated {
				fields[i].Name = repeated
			}
			// A value is longer than a text, perhaps: what counts is each part of it.
			for part := range strings.FieldsFuncSeq(fields[i].Value, func(c rune) bool { return c == '"' || c == '\n' }) {
				if clean(part) == repeated {
					fields[i].Value = repeated
					break
				}
			}
		}
	}
}

const (
	maxValue  = 4 << 10 // bytes of a claim's value
	maxString = 160     // bytes of a string in it
	maxDepth  = 8
)

// shownJSON returns a JSON value on several lines, with long strings cut, identifiers
// shortened, and members sorted.
func shownJSON(name string, raw []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return ""
	}
	if _, err := decoder.Token(); err != io.EOF {
		return ""
	}
	text := laidOut(trimmed(name, value, maxDepth), "")
	if len(text) > maxValue {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:maxValue], ""), len(text))
	}
	return text
}

// lineLength is up to where a JSON value is on one line.
const lineLength = 48

// laidOut is a value as JSON: on one line what fits, as people write it.
func laidOut(value any, indent string) string {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false) // that is html/template's business
	if encoder.Encode(value) != nil {
		return ""
	}
	text := strings.TrimSuffix(line.String(), "\n")
	if len(text) <= lineLength {
		return text
	}
	inner := indent + "  "
	var items []string
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			items = append(items, laidOut(name, inner)+": "+laidOut(v[name], inner))
		}
	case []any:
		for _, item := range v {
			items = append(items, laidOut(item, inner))
		}
	default:
		return text
	}
	return text[:1] + "\n" + inner + strings.Join(items, ",\n"+inner) + "\n" + indent + text[len(text)-1:]
}

// trimmed returns a value as it is shown. name is that of the member that has it.
func trimmed(name string, value any, depth int) any {
	if depth == 0 {
		return "…"
	}
	switch v := value.(type) {
	case map[string]any:
		all := make(map[string]any)
		for _, member := range slices.Sorted(maps.Keys(v))[:min(len(v), maxFields)] {
			of := member
			if isIdentifier(name) { // then what is in it is one, too
				of = name
			}
			all[bounded(member)] = trimmed(of, v[member], depth-1)
		}
		return all
	case []any:
		all := []any{}
		for _, item := range v[:min(len(v), maxFields)] {
			all = append(all, trimmed(name, item, depth-1))
		}
		return all
	case string:
		switch {
		case isIdentifier(name):
			return shortened(bounded(v))
		case len(v) > maxString:
			return fmt.Sprintf("%s… (%d characters)", bounded(v[:maxString/4]), len(v))
		}
		return bounded(v)
	case json.Number:
		if isIdentifier(name) {
			return shortened(v.String())
		}
	}
	return value
}

// proof is the message of step (3), which the instance makes for itself, as it is seen
// when it is sent. Nil: there is none.
func (x *exchange) proof() *Message {
	if x.to == Attester || x.request == Metadata || x.request == AskChallenge {
		return nil
	}
	m := &Message{From: Instance, To: Instance, Line: "signed with the Client Instance Key", Failed: x.failed()}
	for _, name := range jwtFields[1:] {
		if value := x.sent.Header.Get(name); value != "" {
			m.JWTs = append(m.JWTs, decodeJWT(name, value))
		}
	}
	if len(m.JWTs) == 0 {
		return nil
	}
	if x.sent.Header.Get(transport.HeaderAttestation) == "" {
		m.Line = "signed for the access token"
	}
	return m
}

// showAttestation shows an attestation that did not come over HTTP.
func (r *Recorder) showAttestation(compact string, at time.Time) {
	token := decodeJWT("client_attestation", compact)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets.add(compact)
	if r.attester == httpAttester || compact == r.seen.compact { // it was seen
		return
	}
	r.seen = shownAttestation{compact: compact, token: token, at: at}
	r.place()
}

// text returns the value of a claim that is a string, or else as JSON.
func (f Field) text() string {
	if text, err := strconv.Unquote(f.Value); err == nil {
		return text
	}
	return f.Value
}
