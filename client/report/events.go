// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// trace returns a trace that records and then calls another one, which may be nil.
func (r *Recorder) trace(then *client.Trace) *client.Trace {
	if then == nil {
		then = new(client.Trace)
	}
	both := func(record, call func(context.Context, transport.TraceEvent)) func(context.Context, transport.TraceEvent) {
		if call == nil {
			return record
		}
		return func(ctx context.Context, e transport.TraceEvent) {
			record(ctx, e)
			call(ctx, e)
		}
	}
	traced := *then
	traced.Signature = both(r.signature, then.Signature)
	traced.Evidence = both(r.evidence, then.Evidence)
	traced.Renewal = both(r.renewal, then.Renewal)
	traced.Key = func(ctx context.Context, key keystore.Key, e transport.TraceEvent) {
		r.key(key, e)
		if then.Key != nil {
			then.Key(ctx, key, e)
		}
	}
	return &traced
}

// key records step (a). A key in software takes no time worth telling, and no TPM's.
func (r *Recorder) key(key keystore.Key, e transport.TraceEvent) {
	line := map[string]string{"create": "key created", "open": "key opened: it was there", "given": "key given by the program"}[e.Kind]
	message := Message{From: Instance, To: Instance, Line: line}
	var thumbprint string
	if key != nil {
		thumbprint, _ = keystore.Thumbprint(key.Public()) // a key of another kind has none
		message.Body = append(message.Body, Field{Name: "alg", Value: bounded(key.Algorithm())}, Field{Name: "thumbprint", Value: thumbprint})
		if jwk, err := keystore.JWK(key.Public()); err == nil {
			if text, err := json.Marshal(&jwk); err == nil {
				message.Body = append(message.Body, Field{Name: "jwk", Value: shownJSON("jwk", text)})
			}
		}
	} else {
		message.Line, message.Failed = "no key", true
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if key != nil {
		r.fact("key", key.Algorithm()+" "+thumbprint)
	}
	message.At = r.at(e.Start)
	s := r.ran(CreateKey, e.Start)
	s.TPM += milliseconds(e.Duration)
	r.keep(s, message)
	r.span(CreateKey, InTPM, e.Start, e.Duration, key == nil)
}

// signature records step (3). The PoP JWT itself is seen when it is sent.
func (r *Recorder) signature(_ context.Context, e transport.TraceEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.ran(MakeProof, e.Start)
	s.TPM += milliseconds(e.Duration)
	if e.Waited > waitWorthTelling {
		s.Waiting += milliseconds(e.Waited)
		r.span(MakeProof, WaitingForIt, e.Start.Add(-e.Waited), e.Waited, false)
	}
	r.span(MakeProof, InTPM, e.Start, e.Duration, e.Err != nil)
}

// waitWorthTelling is how long a wait is at least that is not just the passing of a
// turn that was free.
const waitWorthTelling = 100 * time.Microsecond

// evidence records how long the key was used for step (b).
func (r *Recorder) evidence(_ context.Context, e transport.TraceEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step(SendEvidence, e.Start).TPM += milliseconds(e.Duration)
	r.span(SendEvidence, InTPM, e.Start, e.Duration, e.Err != nil)
}

// renewal records how an attestation has come that did not come over HTTP.
func (r *Recorder) renewal(_ context.Context, e transport.TraceEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := e.Start.Add(e.Duration)
	switch r.attester {
	case httpAttester: // whose requests were seen
		return
	case pushAttester:
		r.ran(Provisioned, e.Start)
	case selfAttester:
		r.ran(Attestation, done)
		r.verdicts[Attestation] = []Verdict{{Text: "The instance attests itself: there is no Client Attester.", Result: Note}}
	default:
		s := r.ran(SendEvidence, e.Start)
		s.Network += milliseconds(e.Duration)
		r.verdicts[SendEvidence] = []Verdict{{Text: "The program's own attester was asked: its messages were not seen.", Result: Note}}
		r.span(SendEvidence, AtAttester, e.Start, e.Duration, e.Err != nil)
		if e.Err == nil {
			r.ran(VerifyEvidence, done)
			r.ran(Attestation, done)
		}
	}
	r.place()
}

// place puts the attestation that was seen last into the step that it has come by, once
// that has run. r.mu is held.
func (r *Recorder) place() {
	step, from := Attestation, Instance
	switch r.attester {
	case pushAttester:
		step, from = Provisioned, Attester
	case customAttester:
		from = Attester
	}
	ran := slices.IndexFunc(r.steps, func(s *Step) bool { return s.ID == step })
	if ran < 0 || r.seen.placed || r.seen.compact == "" { // it may be from a cache
		return
	}
	r.seen.placed = true
	r.keep(r.steps[ran], Message{From: from, To: Instance, Line: "a Client Attestation JWT", JWTs: []JWT{r.seen.token}, At: r.at(r.seen.at)})
}
