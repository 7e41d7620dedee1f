// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// hostile is a server that does what a test says. It counts its requests.
type hostile struct {
	issuer   string
	requests atomic.Int64
}

// startHostile starts a server with an endpoint for each path, /token and
// /challenge. It answers metadata requests properly.
func startHostile(t *testing.T, endpoints map[string]http.HandlerFunc) *hostile {
	t.Helper()
	h := new(hostile)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		body, _ := io.ReadAll(r.Body) // only then does the server notice that the client has gone
		r.Body = io.NopCloser(bytes.NewReader(body))
		if answer := endpoints[r.URL.Path]; answer != nil {
			answer(w, r)
			return
		}
		metadata := map[string]string{"issuer": h.issuer}
		for path := range endpoints {
			metadata[path[1:]+"_endpoint"] = h.issuer + path
		}
		_ = json.NewEncoder(w).Encode(metadata)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections() // a shared request may outlive its token
		server.Close()
	})
	h.issuer = server.URL
	return h
}

// token returns a token command line for the server, and more flags.
func (h *hostile) token(more ...string) []string {
	return append([]string{"token", "-issuer", h.issuer, "-client-id", clientID, "-json"}, more...)
}

// answers answers with JSON.
func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// stalls sends the beginning of an answer, none if status is 0, and no more.
func stalls(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if status != 0 {
			answers(status, `{"`)(w, r)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
}

// cuts closes the connection in the middle of an answer.
func cuts(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		answers(status, `{"`)(w, r)
		panic(http.ErrAbortHandler)
	}
}

// says answers with a line of its own beside the status.
func says(status int, line string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status, line)
	}
}

// makeKey makes a key and returns the flags that name it.
func makeKey(t *testing.T) []string {
	t.Helper()
	place := []string{"-store", "soft", "-keys", filepath.Join(t.TempDir(), "keys"), "-name", "k"}
	ok(t, append([]string{"key", "create"}, place...)...)
	return place
}
