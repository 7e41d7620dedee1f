// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
)

// chapters are the steps, in their order, as they are without evidence.
var chapters = []struct{ step, title string }{
	{"a", "The Client Instance creates its Client Instance Key"},
	{"b", "It sends a request, signed with the key, to the Client Attester"},
	{"c", "The Client Attester verifies the request"},
	{"d", "and answers with a Client Attestation JWT"},
	{"1", "The Client Instance asks the Authorization Server for a challenge"},
	{"2", "The Authorization Server answers with a challenge"},
	{"3", "The Client Instance makes the PoP JWT over it with its key"},
	{"4", "It sends the Client Attestation JWT and the PoP JWT"},
	{"5", "The Authorization Server verifies both and answers with a token"},
}

// Titles of steps that are about evidence.
const (
	titleEvidence = "It sends evidence about key, device and boot state, signed with the key, to the Client Attester"
	titleKeyAlone = "It sends evidence about the key, signed with it, to the Client Attester"
	titleVerify   = "The Client Attester verifies the evidence against its policy"
	titleDecide   = "The Authorization Server verifies both, and the device against its own policy, and answers with a token"
)

// A step is what was seen of one step. JWTs are shown decoded, without their
// signatures.
type step struct {
	Step  string `json:"step"`
	Title string `json:"title"`

	Store         string           `json:"store,omitempty"`
	Protection    string           `json:"protection,omitempty"`
	Created       *bool            `json:"created,omitempty"` // false: it was there from an earlier run
	Algorithm     string           `json:"alg,omitempty"`
	KeyThumbprint string           `json:"key_thumbprint,omitempty"`
	Key           *jose.JSONWebKey `json:"key,omitempty"`

	Request   string            `json:"request,omitempty"`  // method and URL
	Evidence  *bool             `json:"evidence,omitempty"` // whether the request has any
	Proof     *evidenceView     `json:"proof,omitempty"`    // what is in the evidence
	Note      string            `json:"note,omitempty"`     // what is not, and why
	Fields    map[string]string `json:"fields,omitempty"`   // header fields, and what is in them
	Form      map[string]string `json:"form,omitempty"`
	Status    int               `json:"status,omitempty"` // of the response
	Log       map[string]string `json:"log,omitempty"`    // the server's record of it
	JWT       *jwtview.View     `json:"jwt,omitempty"`
	Attested  *attested         `json:"attested,omitempty"` // what the JWT says of the device
	Challenge string            `json:"challenge,omitempty"`
	TokenType string            `json:"token_type,omitempty"`
	ExpiresIn int               `json:"expires_in,omitempty"` // seconds
	Scope     string            `json:"scope,omitempty"`
	Policy    json.RawMessage   `json:"policy,omitempty"` // the authorization server's, about devices
}

// A story prints steps as they are seen, and knows which ones were due; or acts
// of another story. It is safe for concurrent use.
type story struct {
	out  io.Writer
	json bool

	mu   sync.Mutex
	seen int // steps
	acts int
	err  error
}

// step prints a step, which must be the next one.
func (s *story) step(seen step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	switch {
	case s.seen == len(chapters):
		s.err = fmt.Errorf("step %s came again, after the last one", seen.Step)
		return
	case chapters[s.seen].step != seen.Step:
		s.err = fmt.Errorf("step %s came when %s was due", seen.Step, chapters[s.seen].step)
		return
	}
	if seen.Title == "" {
		seen.Title = chapters[s.seen].title
	}
	s.seen++
	s.print(seen)
}

// preface prints what people should know before the first act.
func (s *story) preface(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.json {
		s.print(text)
	}
}

// act prints an act.
func (s *story) act(played played) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts++
	s.print(played)
	return s.err
}

// fail notes that something seen makes no sense.
func (s *story) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// complete returns nil if all steps were seen in their order.
func (s *story) complete() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.seen < len(chapters) {
		s.err = fmt.Errorf("step %s was not seen", chapters[s.seen].step)
	}
	return s.err
}

// ending is the last line in JSON.
type ending struct {
	OK            bool   `json:"ok"`
	Store         string `json:"store"`
	KeyThumbprint string `json:"key_thumbprint,omitempty"`
	Error         string `json:"error,omitempty"`
}

// end prints the last line. err is what has gone wrong, if anything.
func (s *story) end(store, thumbprint string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.json && err == nil:
		s.print(ending{OK: true, Store: store, KeyThumbprint: thumbprint})
	case s.json:
		s.print(ending{Store: store, Error: err.Error()})
	case err != nil:
		s.print("FAILED after " + s.progress() + ".")
	case s.acts > 0:
		s.print(fmt.Sprintf("OK: all %d acts went as told, with the Client Instance Key %s (store: %s).", s.acts, thumbprint, store))
	default:
		s.print(fmt.Sprintf("OK: the Authorization Server gave a token to the Client Instance with key %s (store: %s).", thumbprint, store))
	}
}

func (s *story) progress() string {
	switch {
	case s.acts > 0:
		return fmt.Sprintf("act %d", s.acts)
	case s.seen > 0:
		return "step (" + chapters[s.seen-1].step + ")"
	default:
		return "no step"
	}
}

// print is called with s.mu held.
func (s *story) print(value any) {
	var err error
	if s.json {
		err = json.NewEncoder(s.out).Encode(value)
	} else {
		_, err = fmt.Fprintln(s.out, value)
	}
	s.err = errors.Join(s.err, err)
}

// String returns the step for people.
func (s step) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "(%s) %s\n", s.Step, s.Title)
	line := func(format string, args ...any) {
		indented := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n    ")
		fmt.Fprintf(&text, "    %s\n", indented)
	}
	if s.Created != nil {
		how := "made now"
		if !*s.Created {
			how = "made by an earlier run"
		}
		line("%s key %s, %s", s.Algorithm, s.KeyThumbprint, how)
		line("store: %s, protection: %s", s.Store, s.Protection)
		line("%s", jwtview.Indent(s.Key))
	}
	if s.Request != "" {
		line("%s", s.Request)
	}
	if s.Proof != nil {
		line("%s", s.Proof)
	}
	if s.Note != "" {
		line("(%s)", s.Note)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Fields)) {
		line("%s: %s", name, s.Fields[name])
	}
	for _, name := range slices.Sorted(maps.Keys(s.Form)) {
		line("%s=%s", name, s.Form[name])
	}
	if s.Status != 0 {
		line("status %d", s.Status)
	}
	if s.Policy != nil {
		line("its policy: %s", strings.TrimSpace(string(s.Policy)))
	}
	if s.Log != nil {
		line("the server's log: %s", jwtview.Indent(s.Log))
	}
	if s.Attested != nil {
		line("attested: %s", s.Attested)
	}
	if s.JWT != nil {
		line("%s", s.JWT)
	}
	if s.Challenge != "" {
		line("challenge: %s", s.Challenge)
	}
	if s.TokenType != "" {
		line("a %s token for %d s, scope %q", s.TokenType, s.ExpiresIn, s.Scope)
	}
	return text.String()
}
