// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

const (
	keptMessages = 4    // of each step and direction, from the first on
	keptFailures = 4    // beside them, of those that failed
	keptSpans    = 2000 // of an act
)

// Options say how to record. The zero value records a run without a title.
type Options struct {
	Title string
	// Facts are those of the program, about the key store for example.
	Facts []Field
	// Software says that the key is not in a TPM.
	Software bool
	// Describe returns the text of an error for people, from whatever the program may
	// have put into it. Nil means what the error says, without quotes of whole answers.
	// It is not called under a lock.
	Describe func(error) string
	// Evidence reads the evidence in a request to an attester, a JSON object (see
	// examples/attester/PROTOCOL.md): what TPM structures and boot logs say, for
	// example, which this package does not read. It is not called under a lock.
	// Nil means that PCRs and sizes are shown.
	Evidence func(evidence []byte) (*Evidence, error)
}

// A Recorder records a run: one [Act]. What it keeps is bounded, however long the run
// is. It is safe for concurrent use.
type Recorder struct {
	options Options
	began   time.Time

	mu         sync.Mutex // never held over foreign code
	facts      []Field
	steps      []*Step
	kept       map[StepID]kept      // how many messages of each step there are
	first      map[StepID]time.Time // when each step ran first: a trace tells of some afterwards
	verdicts   map[StepID][]Verdict
	spans      []Span
	moreSpans  int
	failure    *Failure
	last       lastExchange
	secrets    secrets
	challenges []string // challenge endpoints, as metadata tells
	resources  []string // identifiers
	attester   attesterKind
	seen       shownAttestation
	ended      time.Time // of the last thing recorded
}

// A shownAttestation is one that was seen in a request and did not come over HTTP.
type shownAttestation struct {
	compact string
	token   JWT
	at      time.Time
	placed  bool // in the step that it has come by
}

type kept struct{ usual, failed int }

// An attesterKind is how an attestation comes.
type attesterKind int

const (
	customAttester attesterKind = iota
	httpAttester
	pushAttester
	selfAttester
)

// NewRecorder returns a Recorder, whose time begins now.
func NewRecorder(o Options) *Recorder {
	return &Recorder{options: o, began: time.Now(), facts: slices.Clone(o.Facts), kept: make(map[StepID]kept), verdicts: make(map[StepID][]Verdict), first: make(map[StepID]time.Time)}
}

// Attach has a Client recorded: it sets cfg.Trace, cfg.Base and an HTTPAttester's
// Client to what records and then does what was there before. Call it before client.New.
func (r *Recorder) Attach(cfg *client.Config) {
	r.mu.Lock()
	r.fact("issuer", cfg.Issuer)
	r.fact("client_id", cfg.ClientID)
	for _, resource := range cfg.Resources {
		r.resources = append(r.resources, resource.Identifier)
		r.fact("resource", resource.Identifier)
	}
	if cfg.Metadata != nil {
		r.challenges = append(r.challenges, cfg.Metadata.ChallengeEndpoint)
	}
	r.mu.Unlock()
	cfg.Base = r.RoundTripper(Server, cfg.Base)
	cfg.Attester = r.attached(cfg.Attester)
	cfg.Trace = r.trace(cfg.Trace)
}

// attached returns an attester whose network is recorded, if this package knows it.
func (r *Recorder) attached(attester client.Attester) client.Attester {
	kind := customAttester
	switch a := attester.(type) {
	case client.HTTPAttester:
		kind = httpAttester
		attester = r.attachedHTTP(a)
	case *client.HTTPAttester:
		kind = httpAttester
		attester = r.attachedHTTP(*a)
	case client.PushAttester, *client.PushAttester:
		kind = pushAttester
	case client.SelfAttester, *client.SelfAttester:
		kind = selfAttester
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attester = kind
	return attester
}

func (r *Recorder) attachedHTTP(a client.HTTPAttester) client.HTTPAttester {
	c := *cmp.Or(a.Client, http.DefaultClient)
	c.Transport = r.RoundTripper(Attester, c.Transport)
	a.Client = &c
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fact("attester", a.URL)
	return a
}

// Attest asks the attester for an attestation and records that: for programs that do so
// without a Client.
func (r *Recorder) Attest(ctx context.Context, attester client.Attester, req client.AttestRequest) (string, error) {
	attester = r.attached(attester)
	req.Trace = r.trace(req.Trace)
	r.mu.Lock()
	r.fact("client_id", req.ClientID)
	r.mu.Unlock()
	start := time.Now()
	attestation, err := attester.Attest(ctx, req)
	event := transport.TraceEvent{Start: start, Duration: time.Since(start), Err: err}
	if err == nil {
		r.showAttestation(attestation, start)
	}
	req.Trace.Renewal(ctx, event)
	return attestation, err
}

// Key records step (a) for programs that open the key themselves: kind is "open" or
// "create", start when they began to.
func (r *Recorder) Key(key keystore.Key, kind string, start time.Time) {
	r.key(key, transport.TraceEvent{Start: start, Duration: time.Since(start), Kind: kind})
}

// Fact adds a fact about the run.
func (r *Recorder) Fact(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fact(name, value)
}

// fact adds a fact that is not yet known. r.mu is held.
func (r *Recorder) fact(name, value string) {
	fact := Field{Name: name, Value: bounded(value)}
	if u, err := url.Parse(value); err == nil && u.User != nil {
		fact.Value = bounded(u.Redacted())
	}
	if value != "" && !slices.Contains(r.facts, fact) && len(r.facts) < maxFields {
		r.facts = append(r.facts, fact)
	}
}

// Verdict adds lines to what the attester ([VerifyEvidence]) or the server ([Answer])
// has decided, for programs in which they run. The latest lines of a step take the
// place of earlier ones.
func (r *Recorder) Verdict(step StepID, lines ...Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdicts[step] = nil
	for _, line := range lines[:min(len(lines), maxFields)] {
		line.Text = r.secrets.clean(line.Text)
		r.verdicts[step] = append(r.verdicts[step], line)
	}
}

// Fail records that the run, or one of several in it, has ended with an error. The step
// is found from it. Nil is no failure.
func (r *Recorder) Fail(err error) {
	if err == nil {
		return
	}
	failure := explain(err)
	if r.options.Describe != nil {
		failure.Error = r.options.Describe(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = time.Now()
	if r.failure != nil {
		r.failure.Count++
		return
	}
	failure.Count = 1
	failure.Error = r.secrets.clean(failure.Error)
	failure.Step = r.settle(failure.Step)
	r.failure = &failure
}

// Act returns what was recorded so far.
func (r *Recorder) Act() Act {
	r.mu.Lock()
	defer r.mu.Unlock()
	act := Act{
		Title: bounded(r.options.Title), Facts: slices.Clone(r.facts), Software: r.options.Software,
		Spans: slices.Clone(r.spans), MoreSpans: r.moreSpans,
	}
	if !r.ended.IsZero() {
		act.Duration = r.at(r.ended)
	}
	if r.failure != nil {
		failure := *r.failure
		act.Failure = &failure
	}
	inOrder := slices.SortedFunc(slices.Values(r.steps), func(a, b *Step) int {
		return cmp.Or(r.first[a.ID].Compare(r.first[b.ID]), slices.Index(usualOrder, a.ID)-slices.Index(usualOrder, b.ID))
	})
	for _, s := range inOrder {
		step := *s
		step.Messages, step.Verdict = slices.Clone(s.Messages), slices.Clone(r.verdicts[s.ID])
		act.Steps = append(act.Steps, step)
	}
	return act
}

// usualOrder is the order of steps that have begun at the same time: Windows' clock may
// stand still for 15 ms.
var usualOrder = []StepID{CreateKey, Metadata, SendEvidence, VerifyEvidence, Attestation, Provisioned, AskChallenge, Challenge, MakeProof, SendProof, Answer, ResourceCall}

// Began is when the Recorder was made.
func (r *Recorder) Began() time.Time { return r.began }

// step returns the step, which ran then, perhaps for the first time. r.mu is held.
func (r *Recorder) step(id StepID, at time.Time) *Step {
	if first, ran := r.first[id]; !ran || at.Before(first) {
		r.first[id] = at
	}
	for _, s := range r.steps {
		if s.ID == id {
			return s
		}
	}
	s := &Step{ID: id}
	r.steps = append(r.steps, s)
	return s
}

// ran notes that a step has run once. r.mu is held.
func (r *Recorder) ran(id StepID, at time.Time) *Step {
	s := r.step(id, at)
	s.Count++
	return s
}

// span notes a time. r.mu is held.
func (r *Recorder) span(id StepID, kind SpanKind, start time.Time, took time.Duration, failed bool) {
	if end := start.Add(took); end.After(r.ended) {
		r.ended = end
	}
	if len(r.spans) == keptSpans {
		r.moreSpans++
		return
	}
	r.spans = append(r.spans, Span{Step: id, Kind: kind, Start: r.at(start), Duration: milliseconds(took), Failed: failed})
}

// at returns a time as the document has it.
func (r *Recorder) at(t time.Time) Milliseconds { return milliseconds(t.Sub(r.began)) }

func milliseconds(d time.Duration) Milliseconds {
	return Milliseconds(float64(d.Round(time.Microsecond)) / float64(time.Millisecond))
}
