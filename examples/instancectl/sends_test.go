// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// What is sent after its token was finished counts for the next one.
func TestLateSends(t *testing.T) {
	s := startServers(t, nil)
	counter := &sendCounter{base: http.DefaultTransport}
	get := func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Issuer, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := counter.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	ctx1, first := counter.start(t.Context())
	ctx2, second := counter.start(t.Context())
	get(context.WithoutCancel(ctx1))
	get(ctx2)
	if n := counter.finish(first); n != 1 {
		t.Errorf("first: %d", n)
	}
	get(context.WithoutCancel(ctx1))
	if n := counter.finish(second); n != 2 {
		t.Errorf("second: %d", n)
	}
	if s.Requests() != 3 {
		t.Errorf("the server has seen %d requests", s.Requests())
	}
}

// A request that finds no server was not sent.
func TestSendsNothing(t *testing.T) {
	counter := &sendCounter{base: roundTripFunc(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("no connection")
	})}
	ctx, sent := counter.start(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := counter.RoundTrip(req); err == nil {
		t.Fatal("no error")
	}
	if n := counter.finish(sent); n != 0 {
		t.Errorf("%d sends", n)
	}
}

// A request counts as often as the server may have had it.
func TestSendsRepeated(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		events string // c: got a connection, w: wrote the header, a: is answered
		want   int
	}{
		"POST":                           {http.MethodPost, "cwa", 1},
		"POST on a stale connection":     {http.MethodPost, "ccwa", 1},
		"POST that was written into one": {http.MethodPost, "cwcwa", 1},
		"POST, answered at once":         {http.MethodPost, "caw", 1},
		"POST, not answered":             {http.MethodPost, "cw", 1},
		"POST, not written":              {http.MethodPost, "c", 0},
		"GET":                            {http.MethodGet, "cwa", 1},
		"GET on a stale connection":      {http.MethodGet, "ccwa", 1},
		"GET that is hung up on":         {http.MethodGet, "cwcwa", 2},
		"GET, answered at once":          {http.MethodGet, "cwcaw", 2},
	} {
		t.Run(name, func(t *testing.T) {
			before, after, answered := strings.Cut(tt.events, "a")
			var trace *httptrace.ClientTrace
			play := func(events string) {
				for _, event := range events {
					if event == 'c' {
						trace.GotConn(httptrace.GotConnInfo{})
					} else {
						trace.WroteHeaders()
					}
				}
			}
			counter := &sendCounter{base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				trace = httptrace.ContextClientTrace(req.Context())
				play(before)
				if !answered {
					return nil, io.ErrUnexpectedEOF
				}
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
			})}
			ctx, sent := counter.start(t.Context())
			req, err := http.NewRequestWithContext(ctx, tt.method, "http://127.0.0.1", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := counter.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
			play(after)
			if n := counter.finish(sent); n != tt.want {
				t.Errorf("%d sends, want %d", n, tt.want)
			}
		})
	}
}
