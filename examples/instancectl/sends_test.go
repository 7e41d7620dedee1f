package main

import (
	"context"
	"errors"
	"net/http"
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
