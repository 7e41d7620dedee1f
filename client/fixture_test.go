// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/release"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A testClock shows what a test sets.
type testClock struct {
	mu   sync.Mutex
	time time.Time
}

func newTestClock() *testClock {
	return &testClock{time: release.Since.AddDate(0, 0, 21).Add(12 * time.Hour)}
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(d)
}

// inProcess is a network without sockets: every request, whatever its URL,
// comes to the handler. It works in a synctest bubble.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	received := req.Clone(ctx)
	received.Body = io.NopCloser(bytes.NewReader(body))
	received.Header = make(http.Header) // as from the wire
	for name, values := range req.Header {
		for _, value := range values {
			received.Header.Add(name, value)
		}
	}
	recorder := httptest.NewRecorder()
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		p.ServeHTTP(recorder, received)
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case aborted := <-done:
		if aborted != nil {
			return nil, io.ErrUnexpectedEOF
		}
		resp := recorder.Result()
		resp.Request = req
		return resp, nil
	}
}

// A rig is a strict authorization server with what a Client for it needs, all
// of it counted.
type rig struct {
	*transporttest.Server
	clock    *testClock
	store    *countingStore
	attester *testAttester

	mu    sync.Mutex
	now   func() time.Time
	edits map[string]func(answer map[string]any) // by endpoint; of answers with status 2xx
	extra map[string]map[string]any              // by path: what a strict endpoint of that path answers
	paths map[string]int                         // requests by path
}

// newRig makes a rig whose server refuses nothing at random: tests count
// requests. One that does not count can Set that.
func newRig(t testing.TB, policy transporttest.Policy) *rig {
	policy.NoRandomRefusals = true
	r := &rig{
		clock: newTestClock(),
		store: &countingStore{Store: softkey.New()},
		edits: make(map[string]func(map[string]any)),
		extra: make(map[string]map[string]any),
		paths: make(map[string]int),
	}
	r.now = r.clock.now
	r.Server = transporttest.New(t, transporttest.Config{Policy: policy, Clock: func() time.Time { return r.now() }})
	r.attester = &testAttester{attest: func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		return r.Attester.Attest(req.Key.Public()), nil
	}}
	return r
}

// inBubble runs a test in a synctest bubble. The rig is made outside of it: its
// server has sockets, though nobody uses them here.
func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	r := newRig(t, transporttest.Policy{})
	synctest.Test(t, func(t *testing.T) { test(t, r) })
}

// edit changes what an endpoint answers when all is well.
func (r *rig) edit(endpoint string, change func(answer map[string]any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.edits[endpoint] = change
}

// endpoint makes an endpoint that a client has to authenticate at, and returns
// its URL.
func (r *rig) endpoint(path string, answer map[string]any) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.extra[path] = answer
	return r.URL + path
}

func (r *rig) visits(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paths[path]
}

// total returns how many requests have come in all.
func (r *rig) total() int { return len(r.Requests()) }

func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.paths[req.URL.Path]++
	answer, isExtra := r.extra[req.URL.Path]
	answer = maps.Clone(answer)
	r.mu.Unlock()
	if isExtra {
		req.URL.Path = r.path(transporttest.Introspection) // which judges like all
	}
	recorder := httptest.NewRecorder()
	r.Server.ServeHTTP(recorder, req)
	body := recorder.Body.Bytes()
	if recorder.Code/100 == 2 {
		if !isExtra {
			_ = json.Unmarshal(body, &answer) // what is no object has nothing to edit
		}
		r.mu.Lock()
		for endpoint, change := range r.edits {
			if answer != nil && !isExtra && req.URL.Path == r.path(endpoint) {
				change(answer)
			}
		}
		r.mu.Unlock()
		if answer != nil {
			body, _ = json.Marshal(answer)
		}
	}
	maps.Copy(w.Header(), recorder.Header())
	w.WriteHeader(recorder.Code)
	_, _ = w.Write(body)
}

func (r *rig) path(endpoint string) string { return r.Endpoint(endpoint)[len(r.URL):] }

func (r *rig) config() client.Config {
	return client.Config{
		Issuer:   r.Issuer,
		ClientID: r.ClientID,
		Store:    r.store,
		Attester: r.attester,
		Base:     inProcess{r},
		Clock:    r.clock.now,
	}
}

// client makes a Client that lasts until the test ends.
func (r *rig) client(t testing.TB, edits ...func(*client.Config)) *client.Client {
	t.Helper()
	cfg := r.config()
	for _, edit := range edits {
		edit(&cfg)
	}
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
