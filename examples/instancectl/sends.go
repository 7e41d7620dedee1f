// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// A sendCounter counts requests by the token that they were made for: the one
// whose context, or a context made from it, the request has. So a request that
// several tokens wait for counts for the one that sent it.
type sendCounter struct {
	base http.RoundTripper

	mu   sync.Mutex
	late int // requests of tokens that were done
}

// sends are the requests for one token.
type sends struct {
	n    int
	done bool

	mu      sync.Mutex // of what follows
	cut     error      // why an answer could not be read to its end
	secrets []string   // that were sent
}

type sendsKey struct{}

// sendsOf returns the sends of the token that ctx is for.
func sendsOf(ctx context.Context) *sends {
	if s, _ := ctx.Value(sendsKey{}).(*sends); s != nil {
		return s
	}
	return new(sends) // nobody's
}

// start returns a context whose requests are counted.
func (c *sendCounter) start(ctx context.Context) (context.Context, *sends) {
	s := new(sends)
	return context.WithValue(ctx, sendsKey{}, s), s
}

// finish returns how many requests were sent. What is sent later, such as a
// shared request that goes on after the token has run into its timeout, counts
// for the next that finishes, so that the sum is the servers' count.
func (c *sendCounter) finish(s *sends) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.done = true
	n := s.n + c.late
	c.late = 0
	return n
}

// RoundTrip implements http.RoundTripper. A request counts once it is written:
// one that finds no server has not been sent.
func (c *sendCounter) RoundTrip(req *http.Request) (*http.Response, error) {
	_, idempotent := req.Header["Idempotency-Key"] // as net/http sees it
	out := &outgoing{
		count:   func() { c.count(req.Context()) },
		repeats: idempotent || req.Method == http.MethodGet || req.Method == http.MethodHead,
	}
	trace := &httptrace.ClientTrace{GotConn: out.gotConn, WroteHeaders: out.wrote}
	sendsOf(req.Context()).keepSecrets(req.Header)
	resp, err := c.base.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil {
		out.wrote() // the answer may be here before HTTP/2 says so
		resp.Body = &answer{resp.Body, sendsOf(req.Context())}
	}
	return resp, err
}

// An outgoing request may be written more than once: on a connection from an
// earlier request, which then turns out to be broken, and on another. A POST is
// repeated only if the server has not had it; a GET, or the POST that asks for a
// challenge, also if it has hung up on it.
type outgoing struct {
	count   func()
	repeats bool

	mu             sync.Mutex
	begun, counted bool // has a connection on which it is not counted; is counted
}

func (o *outgoing) gotConn(httptrace.GotConnInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = o.repeats || !o.counted
}

func (o *outgoing) wrote() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.begun {
		o.begun, o.counted = false, true
		o.count()
	}
}

// An answer is a response's body. It remembers for the token why it could not be
// read to its end.
type answer struct {
	io.ReadCloser
	sends *sends
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		a.sends.mu.Lock()
		defer a.sends.mu.Unlock()
		a.sends.cut = err
	}
	return n, err
}

// explain adds to a token's error what ended it, if anything did: its context,
// or a connection in the middle of an answer.
func (s *sends) explain(ctx context.Context, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if by := errors.Join(ctx.Err(), s.cut); by != nil {
		return interrupted{err, by}
	}
	return err
}

func (c *sendCounter) count(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := ctx.Value(sendsKey{}).(*sends)
	if s == nil || s.done {
		c.late++
		return
	}
	s.n++
}
