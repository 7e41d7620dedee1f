// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestErrorBodies: contract line 8. Whatever the body is, the caller reads it
// from its beginning to its end.
func TestErrorBodies(t *testing.T) {
	tests := []struct {
		name   string
		policy policy
		retry  bool // the code can be seen
		length int  // of the body handed back; 0: not looked at
	}{
		{name: "plain", retry: true},
		{name: "401", policy: policy{Status: 401}, retry: true},
		{name: "403", policy: policy{Status: 403}},
		{name: "500", policy: policy{Status: 500}},
		{name: "200", policy: policy{Status: 200}},
		{name: "JSON of another type", policy: policy{ContentType: "application/problem+json"}, retry: true},
		{name: "parameters", policy: policy{ContentType: "Application/JSON; charset=utf-8"}, retry: true},
		{name: "bad parameters", policy: policy{ContentType: "application/json; charset"}, retry: true},
		{name: "text", policy: policy{ContentType: "text/plain"}},
		{name: "HTML", policy: policy{ContentType: "text/html"}},
		{name: "no type at all", policy: policy{ContentType: " "}},
		{name: "huge", policy: policy{Body: transporttest.HugeBody}, length: 1<<20 + len(`{"error":"use_attestation_challenge","error_description":""}`)},
		{name: "gzip", policy: policy{Body: transporttest.GzipBody}, retry: true},
		{name: "error twice", policy: policy{Body: transporttest.DuplicateBody}, length: len(`{"error":"invalid_grant","error":"use_attestation_challenge"}`)},
		{name: "answered before the body was read", policy: policy{Early: true}, retry: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.policy.RefuseAll, test.policy.NoEndpoint = true, true
			f := newFixture(t, test.policy)
			resp, err := f.RoundTrip(f.request(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			body := read(t, resp)
			if !strings.HasPrefix(body, `{"error":"`) || !strings.Contains(body, "use_attestation_challenge") || !strings.HasSuffix(body, `"}`) {
				t.Errorf("body of %d bytes: %.100q", len(body), body)
			}
			if test.length != 0 && len(body) != test.length {
				t.Errorf("body of %d bytes, want %d", len(body), test.length)
			}
			want := 1
			if test.retry {
				want = 2
			}
			f.counts(want, 0)
			if n := transport.Sends(resp); n != want {
				t.Errorf("Sends is %d, want %d", n, want)
			}
		})
	}
}

// TestCompressedBodyIsTheCallers: who asked for gzip himself gets it as it came.
func TestCompressedBodyIsTheCallers(t *testing.T) {
	f := newFixture(t, policy{RefuseAll: true, NoEndpoint: true, Body: transporttest.GzipBody})
	req := f.request(t.Context())
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := f.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(strings.NewReader(read(t, resp)))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(z); err != nil || string(body) != `{"error":"use_attestation_challenge"}` {
		t.Errorf("%q, %v", body, err)
	}
}

// A countingBody is a response body of 8 MiB of spaces after its start, and
// counts what is read of it.
type countingBody struct {
	start  io.Reader
	read   atomic.Int64
	closes atomic.Int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.start.Read(p)
	if err == io.EOF && b.read.Load() < 8<<20 {
		n, err = copy(p, strings.Repeat(" ", len(p))), nil
	}
	b.read.Add(int64(n))
	return n, err
}

func (b *countingBody) Close() error {
	b.closes.Add(1)
	return nil
}

// TestReadsAreBounded: contract lines 8 and 9. However long a body is, 64 KiB
// are read to classify it, and 4 KiB to drop it.
func TestReadsAreBounded(t *testing.T) {
	const slack = 4 << 10 // of whoever reads in blocks
	respond := func(status int, contentType string, body io.ReadCloser) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}, transport.HeaderChallenge: {"c"}}, Body: body}
	}
	tests := []struct {
		name, contentType, start string
		status                   int
		atMost                   int64
	}{
		{"classified", "application/json", `{"error":"use_attestation_challenge"}`, 400, 64<<10 + slack},
		{"no JSON", "text/html", `{"error":"use_attestation_challenge"}`, 400, 0},
		{"no refusal", "application/json", `{"error":"use_attestation_challenge"}`, 200, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true})
			body := &countingBody{start: strings.NewReader(test.start)}
			sends := 0
			f.Transport = f.another(func(c *transport.Config) {
				c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
					sends++
					return respond(test.status, test.contentType, body), nil
				})
			})
			resp, err := f.RoundTrip(f.request(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if n := body.read.Load(); n > test.atMost {
				t.Errorf("%d bytes read, want at most %d", n, test.atMost)
			}
			if n := body.closes.Load(); n != 0 {
				t.Error("the caller's response body was closed")
			}
			first := make([]byte, len(test.start)+10)
			if _, err := io.ReadFull(resp.Body, first); err != nil || !bytes.HasPrefix(first, []byte(test.start)) {
				t.Errorf("%q, %v", first, err)
			}
			resp.Body.Close()
			if n := body.closes.Load(); n != 1 {
				t.Errorf("body closed %d times", n)
			}
			if sends != 1 {
				t.Errorf("%d sends", sends)
			}
		})
	}
	t.Run("challenge endpoint", func(t *testing.T) {
		f := newFixture(t, policy{})
		body := &countingBody{start: strings.NewReader(`{`)}
		f.Transport = f.another(func(c *transport.Config) {
			c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				return respond(200, "application/json", body), nil
			})
		})
		f.fail(f.request(t.Context()))
		if n := body.read.Load(); n > 64<<10+2*slack || body.closes.Load() != 1 {
			t.Errorf("%d bytes read, closed %d times", n, body.closes.Load())
		}
	})
}

// TestDroppedResponsesAreClosedAndConnectionsReused: contract line 9.
func TestDroppedResponsesAreClosedAndConnectionsReused(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true})
	var closes, responses atomic.Int64
	f.Transport = f.another(func(c *transport.Config) {
		inner := c.Base
		c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := inner.RoundTrip(req)
			if err == nil {
				responses.Add(1)
				resp.Body = &closeCounter{resp.Body, &closes}
			}
			return resp, err
		})
	})
	attestation, _ := f.source.Attestation(t.Context(), "", nil)
	f.server.Deny(attestation)
	var reused []bool
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { reused = append(reused, info.Reused) },
	})
	f.want(http.StatusOK, f.request(ctx)) // after two refusals
	if responses.Load() != 3 || closes.Load() != 3 {
		t.Errorf("%d responses, %d closes", responses.Load(), closes.Load())
	}
	if !slices.Equal(reused, []bool{false, true, true}) {
		t.Errorf("connections reused: %v, want one for all three sends", reused)
	}
}

type closeCounter struct {
	io.ReadCloser
	closes *atomic.Int64
}

func (c *closeCounter) Close() error {
	c.closes.Add(1)
	return c.ReadCloser.Close()
}

// TestBodyThatBreaksOff: the caller meets the error where it happened, though the body
// would go on.
func TestBodyThatBreaksOff(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true})
	f.Transport = f.another(func(c *transport.Config) {
		c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			body := io.NopCloser(io.MultiReader(strings.NewReader(`{"error":`), new(failingReader), strings.NewReader(`"invalid_client"}`)))
			return &http.Response{StatusCode: 400, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, nil
		})
	})
	resp, err := f.RoundTrip(f.request(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if string(body) != `{"error":` || err != errTest {
		t.Errorf("%q, %v", body, err)
	}
}

// A failingReader fails once, and is then at its end.
type failingReader struct{ failed bool }

func (r *failingReader) Read([]byte) (int, error) {
	if r.failed {
		return 0, io.EOF
	}
	r.failed = true
	return 0, errTest
}

// TestResponseHoldsNoCredential: what the response says of its request is the
// caller's request.
func TestResponseHoldsNoCredential(t *testing.T) {
	for name, p := range map[string]policy{"success": {}, "retry": {NoEndpoint: true}, "refused": {RefuseAll: true}, "invalid_client": {UnknownClient: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, p)
			req := f.request(t.Context())
			resp, err := f.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			text := fmt.Sprint(resp.Request.Header, resp.Header)
			for _, r := range f.server.Requests(transporttest.Token) {
				for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP} {
					if strings.Contains(text, r.Header.Get(name)) {
						t.Errorf("%s is in the response", name)
					}
				}
			}
			if resp.Request.URL.String() != req.URL.String() || resp.Request.Context().Err() != nil {
				t.Error("the response names another request")
			}
		})
	}
}

// TestEndlessErrorBody: of a refusal that never ends, no more is read than a bounded part,
// before the caller reads it.
func TestEndlessErrorBody(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true})
	endless := &endlessBody{left: 64 << 20}
	rt := f.another(func(c *transport.Config) {
		c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			req.Body.Close()
			return &http.Response{
				StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}}, Body: endless, ContentLength: -1, Request: req,
			}, nil
		})
	})
	resp, err := rt.RoundTrip(f.request(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if endless.read > 1<<20 {
		t.Errorf("%d bytes were read of it", endless.read)
	}
	start := make([]byte, 12)
	if _, err := io.ReadFull(resp.Body, start); err != nil || string(start) != `{"error":"aa` {
		t.Errorf("the caller gets %q, %v", start, err)
	}
}

// endlessBody is a JSON text that goes on for longer than anybody should read.
type endlessBody struct{ read, left int }

func (b *endlessBody) Read(p []byte) (int, error) {
	const start = `{"error":"`
	n := min(len(p), b.left)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = 'a'
		if b.read+i < len(start) {
			p[i] = start[b.read+i]
		}
	}
	b.read, b.left = b.read+n, b.left-n
	return n, nil
}

func (b *endlessBody) Close() error { return nil }
