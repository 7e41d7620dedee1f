// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/transport"
)

// place is a URL without what may be secret: user, query and fragment.
func place(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

// samePlace reports whether a URL, as metadata or a configuration has it, is at a place.
func samePlace(raw, location string) bool {
	u, err := url.Parse(raw)
	return err == nil && raw != "" && place(u) == location
}

// jwtFields are header fields that hold a JWT.
var jwtFields = []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, transport.HeaderDPoP}

// harmless are header fields that a text may well repeat.
var harmless = []string{"Accept-Encoding", "Accept-Language", "Content-Length", "User-Agent"}

// Header fields that are shown; of others there is the size.
var (
	shownSent     = []string{"Accept", "Content-Type"}
	shownReceived = []string{
		"Cache-Control", "Content-Length", "Content-Type", "Date", "Retry-After", "Www-Authenticate",
		http.CanonicalHeaderKey(transport.HeaderChallenge), http.CanonicalHeaderKey(transport.HeaderDPoPNonce),
	}
)

// sentMessage is the request. It takes note of the credentials in it.
func (x *exchange) sentMessage(failed bool) Message {
	u, size := *x.sent.URL, max(int(x.sent.ContentLength), 0)
	if x.to != Resource {
		x.sentBody = bodyOf(x.sent)
		size = max(size, len(x.sentBody))
	}
	m := Message{
		From: Instance, To: x.to, Line: bounded(x.sent.Method + " " + place(&u)), Bytes: size, Failed: failed,
		At: x.recorder.at(x.start),
	}
	if u.RawQuery != "" {
		m.Line += "?…"
	}
	var found secrets
	for _, name := range slices.Sorted(maps.Keys(x.sent.Header)) {
		if len(x.sent.Header[name]) == 0 {
			continue // is for net/http, and not sent
		}
		value := strings.Join(x.sent.Header[name], ", ")
		field := Field{Name: bounded(name), Hidden: len(value)}
		isJWT := slices.ContainsFunc(jwtFields, func(n string) bool { return strings.EqualFold(n, name) })
		switch {
		case isJWT:
			found.add(value)
			field.Value = "a JWT, see below"
			m.JWTs = append(m.JWTs, decodeJWT(wireName(name), value))
		case slices.Contains(shownSent, name):
			field = Field{Name: name, Value: bounded(value)}
		case name == "Authorization":
			scheme, credential, hasScheme := strings.Cut(value, " ")
			if !hasScheme {
				scheme, credential = "", value
			}
			found.add(credential)
			field.Value = strings.TrimSpace(bounded(scheme) + " …")
		case !slices.Contains(harmless, name):
			found.add(value)
		}
		m.Header = appendField(m.Header, field)
	}
	x.readSent(&m, &found)
	x.remember(found)
	clean := x.cleaner()
	for i := range m.JWTs { // an attestation's claims are its attester's text
		m.JWTs[i].clean(clean)
	}
	return m
}

// wireName is a header field's name as the draft writes it.
func wireName(name string) string {
	for _, known := range jwtFields {
		if strings.EqualFold(known, name) {
			return known
		}
	}
	return name
}

// readSent reads the body of a request: a form to a server, JSON to an attester.
func (x *exchange) readSent(m *Message, found *secrets) {
	if len(x.sentBody) == 0 || x.to == Resource {
		return
	}
	if x.to != Attester {
		form, err := url.ParseQuery(string(x.sentBody))
		if err == nil && strings.HasPrefix(x.sent.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			for _, name := range slices.Sorted(maps.Keys(form)) {
				m.Body = appendField(m.Body, formField(name, form[name], found))
			}
			return
		}
		found.add(string(x.sentBody))
		return
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(x.sentBody, &members) != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		field := Field{Name: bounded(name), Hidden: len(members[name])}
		var text string
		if json.Unmarshal(members[name], &text) == nil && strings.Count(text, ".") == 2 {
			found.add(text)
			token := decodeJWT(name, text)
			m.Evidence = x.takeEvidence(text, &token)
			m.JWTs = append(m.JWTs, token)
			field.Value = "a JWT, see below"
		} else {
			found.add(text)
		}
		m.Body = appendField(m.Body, field)
	}
}

// shownParameters are form parameters whose value is shown.
var shownParameters = []string{
	"grant_type", "client_id", "scope", "resource", "audience", "response_type", "code_challenge_method",
	"token_type_hint", "subject_token_type", "actor_token_type", "requested_token_type", "dpop_jkt",
}

func formField(name string, values []string, found *secrets) Field {
	value := strings.Join(values, " ")
	if slices.Contains(shownParameters, name) {
		return Field{Name: name, Value: bounded(value)}
	}
	for _, value := range values {
		found.add(value)
	}
	return Field{Name: bounded(name), Hidden: len(value)}
}

// Members of answers that are shown.
var shownMembers = []string{
	"token_type", "expires_in", "scope", "issued_token_type", "error", "error_description", "attestation_challenge", "challenge", "pcrs",
}

// gotMessage is the answer. Its texts are the server's: each is held against what was
// seen of credentials, also by those that may see it for the first time.
func (x *exchange) gotMessage(received []byte, size int) Message {
	m := Message{From: x.to, To: Instance, Bytes: size, Failed: x.failed()}
	m.Line = strings.TrimSpace(fmt.Sprintf("%d %s", x.status, http.StatusText(x.status)))
	members := x.members(received)
	x.rememberTokens(members)
	clean := x.cleaner()
	for _, name := range slices.Sorted(maps.Keys(x.header)) {
		value := strings.Join(x.header[name], ", ")
		field := Field{Name: clean(name), Hidden: len(value)}
		if slices.Contains(shownReceived, name) {
			field = Field{Name: name, Value: clean(value)}
		}
		m.Header = appendField(m.Header, field)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		raw := members[name]
		field := Field{Name: clean(name), Hidden: len(raw)}
		var text string
		isText := json.Unmarshal(raw, &text) == nil
		switch {
		case name == "client_attestation" && isText:
			token := decodeJWT(name, text)
			token.clean(clean)
			m.JWTs = append(m.JWTs, token)
			field.Value = "a JWT, see below"
		case slices.Contains(shownMembers, name) || x.request == Metadata:
			field = Field{Name: clean(name), Value: clean(strings.Trim(shownJSON(name, raw), `"`))}
		}
		m.Body = appendField(m.Body, field)
	}
	return m
}

// members are those of a JSON object in an answer. A resource's are its own affair.
func (x *exchange) members(received []byte) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if x.to != Resource || x.failed() || x.request == Metadata {
		_ = json.NewDecoder(bytes.NewReader(received)).Decode(&members) // what is none has none
	}
	return members
}

// rememberTokens takes note of the credentials in an answer: every text that is not
// among those that are shown.
func (x *exchange) rememberTokens(members map[string]json.RawMessage) {
	var found secrets
	for name, raw := range members {
		var text string
		if !slices.Contains(shownMembers, name) && x.request != Metadata && json.Unmarshal(raw, &text) == nil {
			found.add(text)
		}
	}
	x.remember(found)
}

func (x *exchange) remember(found secrets) {
	r := x.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range found {
		r.secrets.add(secret)
	}
}

// cleaner returns what cleans texts, by the secrets that are known now.
func (x *exchange) cleaner() func(string) string {
	r := x.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.secrets).clean
}

// learn takes from metadata where challenges come from. r.mu is held.
func (r *Recorder) learn(x *exchange, received []byte) {
	var metadata struct {
		Challenge string `json:"challenge_endpoint"`
	}
	if x.request != Metadata || x.failed() || json.Unmarshal(received, &metadata) != nil {
		return
	}
	if metadata.Challenge != "" && !slices.Contains(r.challenges, metadata.Challenge) && len(r.challenges) < maxFields {
		r.challenges = append(r.challenges, metadata.Challenge)
	}
}

func appendField(fields []Field, f Field) []Field {
	if len(fields) == maxFields {
		return fields
	}
	return append(fields, f)
}
