// SPDX-License-Identifier: Apache-2.0

// Package serve is the HTTP that the reference servers have in common: exact
// routes, JSON answers, and running them from a main.
package serve

import (
	"encoding/json"
	"mime"
	"net/http"
)

// Routes maps exact paths to handlers. Unlike [http.ServeMux] it never
// redirects to a cleaned path: a client that authenticated its request must not
// be sent elsewhere.
type Routes map[string]Route

// A Route is one path: its method (GET stands for HEAD as well) and handler.
type Route struct {
	Method  string
	Handler http.HandlerFunc
}

// ServeHTTP answers 404 for another path and 405 for another method.
func (routes Routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, ok := routes[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method != route.Method && !(r.Method == http.MethodHead && route.Method == http.MethodGet) {
		w.Header().Set("Allow", route.Method)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	route.Handler(w, r)
}

// JSON writes v as the whole response.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // an error here means that the client has gone
}

// IsMediaType reports whether the request's body is declared, exactly once, as
// the given media type, with any parameters.
func IsMediaType(r *http.Request, want string) bool {
	fields := r.Header.Values("Content-Type")
	if len(fields) != 1 {
		return false
	}
	got, _, err := mime.ParseMediaType(fields[0])
	return err == nil && got == want
}
