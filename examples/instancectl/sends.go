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
	cut  error // why an answer could not be read to its end
}

type sendsKey struct{}

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

// RoundTrip implements http.RoundTripper. A request counts once it has a
// connection: one that finds no server has not been sent.
func (c *sendCounter) RoundTrip(req *http.Request) (*http.Response, error) {
	var once sync.Once // a request that meets a stale connection gets a second one
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		once.Do(func() { c.count(req.Context()) })
	}}
	resp, err := c.base.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil {
		resp.Body = &answer{resp.Body, c, req.Context()}
	}
	return resp, err
}

// An answer is a response's body. It remembers for the token why it could not be
// read to its end.
type answer struct {
	io.ReadCloser
	counter *sendCounter
	ctx     context.Context
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		a.counter.mu.Lock()
		defer a.counter.mu.Unlock()
		if s, _ := a.ctx.Value(sendsKey{}).(*sends); s != nil {
			s.cut = err
		}
	}
	return n, err
}

// explain adds to a token's error what ended it, if anything did: its context,
// or a connection in the middle of an answer.
func (c *sendCounter) explain(ctx context.Context, s *sends, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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
