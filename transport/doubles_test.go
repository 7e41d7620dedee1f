// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/instancekey/instancekey/keystore"
)

// base is a base transport without a network: what it is sent is answered by a
// handler in the caller's goroutine. It keeps the contract of http.RoundTripper
// to the letter: the body is read and closed once.
type base struct {
	handler http.Handler
	sends   atomic.Int64
}

func (b *base) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	b.sends.Add(1)
	in := req.Clone(req.Context())
	if req.Body != nil {
		content, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		in.Body = io.NopCloser(strings.NewReader(string(content)))
	} else {
		in.Body = http.NoBody
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	// As on the wire.
	in.Header = make(http.Header)
	for name, values := range req.Header {
		for _, value := range values {
			in.Header.Add(name, value)
		}
	}
	in.RequestURI = req.URL.RequestURI()
	type answer struct {
		recorder *httptest.ResponseRecorder
		cut      any
	}
	answers := make(chan answer, 1)
	go func() {
		a := answer{recorder: httptest.NewRecorder()}
		defer func() {
			a.cut = recover()
			answers <- a
		}()
		b.handler.ServeHTTP(a.recorder, in)
	}()
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case a := <-answers:
		if a.cut != nil {
			return nil, io.ErrUnexpectedEOF
		}
		resp := a.recorder.Result()
		resp.Request = req
		return resp, nil
	}
}

// roundTripper is a base transport of one function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// recording is a base transport that answers 200 and keeps the request.
func recording(to **http.Request) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		*to = req
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	})
}

// A spyBody counts how often it is closed.
type spyBody struct {
	io.Reader
	closes atomic.Int64
}

func newSpyBody() *spyBody { return &spyBody{Reader: strings.NewReader(form)} }

func (b *spyBody) Close() error {
	b.closes.Add(1)
	return nil
}

// A stuckKey signs when it is let, and gives up when its context ends.
type stuckKey struct {
	keystore.Key
	entered chan struct{} // gets a value for each Sign that has begun
	let     chan struct{} // closed: signs
}

func newStuckKey(key keystore.Key) *stuckKey {
	return &stuckKey{Key: key, entered: make(chan struct{}, 100), let: make(chan struct{})}
}

func (k *stuckKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	k.entered <- struct{}{}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-k.let:
		return k.Key.Sign(ctx, input)
	}
}

// failingKey cannot sign.
type failingKey struct {
	keystore.Key
	err error
}

func (k failingKey) Sign(context.Context, []byte) ([]byte, error) { return nil, k.err }

// sourceFunc is an AttestationSource of one function.
type sourceFunc func(ctx context.Context, rejected string, signingAlgs []string) (string, error)

func (f sourceFunc) Attestation(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
	return f(ctx, rejected, signingAlgs)
}

func (f sourceFunc) Judged(string, bool) {}

var errTest = errors.New("out of order, on purpose")
