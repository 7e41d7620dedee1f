// SPDX-License-Identifier: Apache-2.0

// Package report draws a run of a client instance as one HTML page: Figure 1 of
// OAuth 2.0 Attestation-Based Client Authentication, with the steps that ran, how long
// each took, and what was in each message. It is for developers who want to see the
// flow, for technicians who send somebody the picture of what has failed, and for
// reviewers who want to know what leaves a device.
//
//	rec := report.NewRecorder(report.Options{})
//	rec.Attach(&cfg) // a client.Config, before client.New
//	c, err := client.New(ctx, cfg)
//	if err == nil {
//		_, err = c.Token(ctx)
//	}
//	rec.Fail(err) // nil is no failure
//	err = report.Document{Title: "meter 17", Acts: []report.Act{rec.Act()}}.WriteFile("run.html")
//
// A [Recorder] makes an [Act] of what it sees: [client.Trace] tells it how long the TPM
// took and who waited, and it sees the messages on the network. A [Document] is acts with a
// title. Its JSON is the format of this package ([Document.WriteJSON]): [Read] makes a
// Document of it again, on another machine, perhaps.
//
// # What is not in it
//
// No signature, token, code, PIN, refresh token or other credential: of a JWT there is
// what it says, and of a form parameter, a member or a header field that may be secret
// its name and its size. Text of a server that repeats a part of a credential is
// left out. Endorsement keys, serial numbers and other identifiers of a device are
// shortened. What remains is the device's state and the place of its servers, which is
// not everybody's business, either: files are written for their owner alone.
//
// # The page
//
// It needs nothing from elsewhere, also no network, and forbids itself to load
// anything. Nothing that a server sends is executed: html/template escapes it, and
// the page's policy allows the page's own script and no other. Without scripts, and
// in print, all steps are shown one below the other.
//
// This package links html/template. Programs that do not import it do not.
//
// # Where to find what
//
//   - document.go, file.go: the format, and its files
//   - recorder.go, events.go, exchange.go: what is recorded, from the trace and from the network
//   - message.go, claims.go, evidence.go, hide.go: what is shown of a message, and what is not
//   - failure.go: which step an error belongs to, and what to do
//   - steps.go, meaning.go, verdict.go: the words for steps, claims and verdicts
//   - page.go, view.go, figure.go, layout.go, timeline.go: the page
package report

import (
	"strings"
	"time"
)

// Version is that of the JSON format. A Document of another one is not read.
const Version = 1

// A Document is what a page is made of.
type Document struct {
	Version int       `json:"version"` // WriteJSON sets it
	Title   string    `json:"title"`
	Program string    `json:"program,omitempty"` // that recorded it, and its version
	Began   time.Time `json:"began"`             // zero: not known
	Acts    []Act     `json:"acts"`
}

// An Act is one run of the flow: for one token, or for many at one server.
type Act struct {
	Title    string       `json:"title,omitempty"`
	Facts    []Field      `json:"facts,omitempty"` // of client, key and servers
	Duration Milliseconds `json:"duration_ms"`
	// Software says that the key is not in a TPM.
	Software bool `json:"software_key,omitempty"`
	// Steps are those that ran, in the order in which each ran first.
	Steps   []Step   `json:"steps,omitempty"`
	Failure *Failure `json:"failure,omitempty"` // nil: none
	// Spans are what took time, and MoreSpans how many there were beside these.
	Spans     []Span `json:"spans,omitempty"`
	MoreSpans int    `json:"more_spans,omitempty"`
}

// Milliseconds is a duration, to the microsecond.
type Milliseconds float64

// A StepID is a letter or a number of Figure 1, or one of what it leaves out.
type StepID string

// The steps of Figure 1; it has no (e). Metadata comes before the first request to a
// server or resource, and ResourceCall after the last step.
const (
	CreateKey      StepID = "a" // the Client Instance creates its key
	SendEvidence   StepID = "b" // and sends evidence to the Client Attester
	VerifyEvidence StepID = "c" // who verifies it
	Attestation    StepID = "d" // and answers with a Client Attestation JWT
	Provisioned    StepID = "f" // or has provided it beforehand
	AskChallenge   StepID = "1" // the Client Instance asks for a challenge
	Challenge      StepID = "2" // and gets one
	MakeProof      StepID = "3" // signs the PoP JWT
	SendProof      StepID = "4" // sends both JWTs
	Answer         StepID = "5" // and the Authorization Server verifies, and answers
	Metadata       StepID = "metadata"
	ResourceCall   StepID = "resource"
)

// A Step is all that was seen of one step.
type Step struct {
	ID       StepID       `json:"step"`
	Count    int          `json:"count"`    // how often it ran
	Requests int          `json:"requests"` // that were sent in it
	TPM      Milliseconds `json:"tpm_ms"`   // in the TPM, or in the key store that takes its place
	Network  Milliseconds `json:"network_ms"`
	Waiting  Milliseconds `json:"waiting_ms"` // for the key's turn
	// Messages are the first ones, and the first of those that failed, and
	// MoreMessages how many there were beside these.
	Messages     []Message `json:"messages,omitempty"`
	MoreMessages int       `json:"more_messages,omitempty"`
	Verdict      []Verdict `json:"verdict,omitempty"`
}

// A Party is one of those in Figure 1.
type Party string

// The parties.
const (
	Instance Party = "instance" // the Client Instance, with its TPM
	Attester Party = "attester" // the Client Attester
	Server   Party = "server"   // the Authorization Server
	Resource Party = "resource" // a protected resource
)

// A Message is what one party has sent to another, or made for itself.
type Message struct {
	From     Party        `json:"from"`
	To       Party        `json:"to"`
	At       Milliseconds `json:"at_ms"`            // since the act began
	Line     string       `json:"line"`             // method and URL, or the status
	Header   []Field      `json:"header,omitempty"` // fields
	Body     []Field      `json:"body,omitempty"`   // parameters of a form, members of a JSON object
	JWTs     []JWT        `json:"jwts,omitempty"`
	Evidence *Evidence    `json:"evidence,omitempty"`
	Bytes    int          `json:"bytes,omitempty"` // of the body
	Failed   bool         `json:"failed,omitempty"`
}

// A Field is a name with its value, which is JSON where it is the value of a claim.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// Hidden is the size of a value that is not in the report, in bytes.
	Hidden int `json:"hidden_bytes,omitempty"`
}

// Long reports whether the value has several lines.
func (f Field) Long() bool { return strings.Contains(f.Value, "\n") }

// A JWT is what one says, without its signature.
type JWT struct {
	Name   string  `json:"name"` // where it was
	Header []Field `json:"header"`
	Claims []Field `json:"claims"`
}

// Evidence is what a device has said of its key and of itself.
type Evidence struct {
	Parts []EvidencePart `json:"parts,omitempty"`
	PCRs  []PCR          `json:"pcrs,omitempty"`
	// Events are the first ones of the boot log, and MoreEvents how many it has beside.
	Events     []Event `json:"events,omitempty"`
	MoreEvents int     `json:"more_events,omitempty"`
}

// An EvidencePart is one statement, of TPM2_Certify for example.
type EvidencePart struct {
	Title  string  `json:"title"`
	Fields []Field `json:"fields"`
}

// A PCR is a platform configuration register as it was quoted.
type PCR struct {
	Number int    `json:"number"`
	Value  string `json:"value"` // in hexadecimal
}

// An Event is a line of a boot log.
type Event struct {
	PCR    int    `json:"pcr"`
	Type   string `json:"type"`
	Digest string `json:"digest"` // in hexadecimal
}

// A Verdict is one line of what an attester or a server has decided, and by what.
type Verdict struct {
	Text   string `json:"text"`
	Result Result `json:"result"`
}

// A Result is what a line of a verdict comes to.
type Result string

// The results.
const (
	Pass Result = "pass"
	Fail Result = "fail"
	Note Result = "note" // neither
)

// Class is the Result, or Note for what is none.
func (r Result) Class() Result {
	if r == Pass || r == Fail {
		return r
	}
	return Note
}

// A Failure is what has ended a run.
type Failure struct {
	Step   StepID `json:"step,omitempty"` // "": before the first one
	Error  string `json:"error"`
	Remedy string `json:"remedy"` // what to do
	Count  int    `json:"count"`  // how often something failed; the rest is of the first time
}

// A Span is a time in which something was done or waited for.
type Span struct {
	Step     StepID       `json:"step"`
	Kind     SpanKind     `json:"kind"`
	Start    Milliseconds `json:"start_ms"` // since the act began
	Duration Milliseconds `json:"duration_ms"`
	Failed   bool         `json:"failed,omitempty"`
}

// A SpanKind is what the time of a Span was spent with.
type SpanKind string

// The kinds of spans.
const (
	InTPM        SpanKind = "tpm" // or in the key store that takes its place
	AtAttester   SpanKind = "attester"
	AtServer     SpanKind = "server"
	AtResource   SpanKind = "resource"
	WaitingForIt SpanKind = "waiting" // for the key's turn
)
