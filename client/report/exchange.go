// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/transport"
)

// maxBody is how many bytes of a body are looked at. An attester's requests have a boot
// log in them.
const maxBody = 1 << 20

// RoundTripper returns what sends requests with base, to an Attester or to whoever else,
// and records them: for attesters of a program's own. Requests to a Server that are no
// part of the flow are passed on unseen. A nil base is http.DefaultTransport.
func (r *Recorder) RoundTripper(to Party, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &roundTripper{r, to, base}
}

type roundTripper struct {
	recorder *Recorder
	to       Party
	base     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	request, answer, to := t.recorder.classify(req, t.to)
	if request == "" {
		return t.base.RoundTrip(req)
	}
	x := &exchange{recorder: t.recorder, request: request, answer: answer, to: to, sent: req, start: time.Now()}
	resp, err := t.base.RoundTrip(req)
	x.took = time.Since(x.start)
	if err != nil {
		x.lost(err)
		return nil, err
	}
	x.status = resp.StatusCode
	x.header = resp.Header.Clone()
	x.count()
	resp.Body = &tee{ReadCloser: resp.Body, x: x}
	return resp, nil
}

// CloseIdleConnections is for http.Client's method of that name.
func (t *roundTripper) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// classify returns the steps of a request and its answer, and whom it is to: "" for what
// is no part of the flow.
func (r *Recorder) classify(req *http.Request, to Party) (request, answer StepID, whom Party) {
	if to == Attester {
		if strings.HasSuffix(req.URL.Path, "/client-attestation") {
			return SendEvidence, Attestation, Attester
		}
		return SendEvidence, SendEvidence, Attester
	}
	location := place(req.URL)
	r.mu.Lock()
	isChallenge := slices.ContainsFunc(r.challenges, func(c string) bool { return samePlace(c, location) })
	isResource := slices.ContainsFunc(r.resources, func(id string) bool { return isAt(id, req.URL) })
	r.mu.Unlock()
	attested := req.Header.Get(transport.HeaderAttestation) != ""
	proved := attested || req.Header.Get(transport.HeaderDPoP) != ""
	switch {
	case strings.Contains(req.URL.Path, "/.well-known/"):
		return Metadata, Metadata, Server
	case isChallenge && req.Method == http.MethodPost && !proved:
		return AskChallenge, Challenge, Server
	case attested && req.Method == http.MethodPost && isForm(req) && req.Header.Get("Authorization") == "":
		return SendProof, Answer, Server // which may be below a resource
	case isResource || req.Header.Get("Authorization") != "" && proved:
		return ResourceCall, ResourceCall, Resource
	case proved:
		return SendProof, Answer, Server
	default:
		return "", "", ""
	}
}

// isAt reports whether a URL is a resource's, or below it.
func isAt(identifier string, u *url.URL) bool {
	base, err := url.Parse(identifier)
	return err == nil && endpoint.Below(u, base)
}

func isForm(req *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	return err == nil && mediaType == "application/x-www-form-urlencoded"
}

// An exchange is a request and its answer.
type exchange struct {
	recorder        *Recorder
	request, answer StepID // the answer's, if it is a good one
	to              Party
	sent            *http.Request
	sentBody        []byte // as far as it can be read again
	start           time.Time
	took            time.Duration // until the header of the answer

	status int
	header http.Header
	once   sync.Once
}

// A lastExchange is what the steps of an error depend on, that could have been at either
// end.
type lastExchange struct {
	step StepID
	to   Party
}

// failed reports whether the answer is no good one.
func (x *exchange) failed() bool { return x.status/100 != 2 }

// answered is the step of the answer: an attester that refuses has verified, and not
// attested.
func (x *exchange) answered() StepID {
	if x.failed() && x.answer == Attestation {
		return VerifyEvidence
	}
	return x.answer
}

// answeredAt is when the header of the answer had come.
func (x *exchange) answeredAt() time.Time { return x.start.Add(x.took) }

// lost records a request without an answer.
func (x *exchange) lost(err error) {
	r := x.recorder
	sent := x.sentMessage(true)
	lost := Message{From: x.to, To: Instance, Line: "no answer", Failed: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	lost.Line = "no answer: " + r.secrets.clean(plain(err))
	lost.At = r.at(x.answeredAt())
	r.last = lastExchange{x.request, x.to}
	s := r.requested(x, true)
	r.keep(s, sent)
	r.keep(s, lost)
}

// count records that there was an answer, when its header has come.
func (x *exchange) count() {
	r := x.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = lastExchange{x.answered(), x.to}
	r.requested(x, x.failed())
	switch answered := x.answered(); {
	case x.answer == Attestation:
		r.ran(VerifyEvidence, x.answeredAt())
		if answered == Attestation {
			r.ran(Attestation, x.answeredAt())
		}
	case x.answer != x.request:
		r.ran(x.answer, x.answeredAt())
	}
}

// requested notes the request. r.mu is held.
func (r *Recorder) requested(x *exchange, failed bool) *Step {
	s := r.step(x.request, x.start)
	// An attester is asked several times for one attestation.
	if x.to != Attester || x.answer == Attestation {
		s.Count++
	}
	s.Requests++
	s.Network += milliseconds(x.took)
	kind := map[Party]SpanKind{Attester: AtAttester, Server: AtServer, Resource: AtResource}[x.to]
	r.span(x.request, kind, x.start, x.took, failed)
	return s
}

// done records both messages, when the answer was read or is not read any further.
func (x *exchange) done(received []byte, size int) {
	x.once.Do(func() { x.show(received, size) })
}

func (x *exchange) show(received []byte, size int) {
	r := x.recorder
	r.mu.Lock()
	// Nothing is read for a message that is not kept, of the many of a long run.
	needed := r.wants(x.request, x.failed()) || r.wants(x.answered(), x.failed()) || x.request == Metadata
	r.mu.Unlock()
	if !needed {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.step(x.request, x.start).MoreMessages++
		r.step(x.answered(), x.answeredAt()).MoreMessages++
		return
	}
	sent := x.sentMessage(false)
	got := x.gotMessage(received, size)
	proof := x.proof()
	if attestation := x.sent.Header.Get(transport.HeaderAttestation); attestation != "" {
		r.showAttestation(attestation, x.start)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.learn(x, received)
	sent.At, got.At = r.at(x.start), r.at(x.answeredAt())
	if proof != nil {
		proof.At = sent.At
		r.keep(r.step(MakeProof, x.start), *proof)
	}
	sent.Failed = x.failed()
	r.keep(r.step(x.request, x.start), sent)
	r.keep(r.step(x.answered(), x.answeredAt()), got)
}

// keep keeps a message of a step, if it is among the first. r.mu is held.
func (r *Recorder) keep(s *Step, m Message) {
	if !r.wants(s.ID, m.Failed) {
		s.MoreMessages++
		return
	}
	count := r.kept[s.ID]
	if m.Failed {
		count.failed++
	} else {
		count.usual++
	}
	r.kept[s.ID] = count
	s.Messages = append(s.Messages, m)
}

// wants reports whether a message of a step would be kept. r.mu is held.
func (r *Recorder) wants(id StepID, failed bool) bool {
	limit := keptMessages
	if id == SendEvidence || id == Metadata {
		limit *= 2 // there are several requests, and their answers are in the same step
	}
	count := r.kept[id]
	return !failed && count.usual < limit || failed && count.failed < keptFailures
}

// bodyOf reads a copy of what is sent, as far as there is one.
func bodyOf(req *http.Request) []byte {
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	defer body.Close()
	content, _ := io.ReadAll(io.LimitReader(body, maxBody)) // a copy in memory
	return content
}

// A tee is a body that is recorded as it is read.
type tee struct {
	io.ReadCloser
	x *exchange

	mu   sync.Mutex // a body may be closed while it is read
	read bytes.Buffer
	size int
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.mu.Lock()
	t.size += n
	t.read.Write(p[:min(n, maxBody-t.read.Len())])
	t.mu.Unlock()
	if err != nil {
		t.end()
	}
	return n, err
}

func (t *tee) Close() error {
	err := t.ReadCloser.Close()
	t.end()
	return err
}

func (t *tee) end() {
	t.mu.Lock()
	read, size := bytes.Clone(t.read.Bytes()), t.size
	t.mu.Unlock()
	t.x.done(read, size)
}
