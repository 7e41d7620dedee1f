// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestTokenResourceWants: -resource-attestation and -resource-parameter.
func TestTokenResourceWants(t *testing.T) {
	s, known := startWithResource(t, nil)
	var attested, calls atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		calls.Add(1)
		if r.Header.Get("OAuth-Client-Attestation") != "" {
			attested.Add(1)
		}
	}))
	defer api.Close()
	for _, test := range []struct {
		resource string
		flags    []string
		want     string // the error; "": none
		attested int64
	}{
		{api.URL, nil, "invalid_target", 0}, // the server knows one resource
		{api.URL, []string{"-resource-parameter=false"}, "", 0},
		{api.URL, []string{"-resource-parameter=false", "-resource-attestation", "always"}, "", 1},
		{api.URL, []string{"-resource-parameter=false", "-resource-attestation", "never"}, "", 0},
		{known, nil, "", 0},
		{known, []string{"-resource-attestation", "never"}, "resource_401", 0},
	} {
		attested.Store(0)
		r := instancectl(t, s.token(append(test.flags, "-store", "soft", "-self", s.self, "-resource", test.resource)...)...)
		if lines := tokenLines(t, r); len(lines) != 1 || lines[0].Error != test.want || attested.Load() != test.attested {
			t.Errorf("%s %q: %+v, want %q; %d attestations, want %d", test.resource, test.flags, lines, test.want, attested.Load(), test.attested)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d calls, want 3", calls.Load())
	}
	if r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-resource", known, "-resource-attestation", "x")...); r.status != 2 || !strings.Contains(r.stderr, "listed, always or never") {
		t.Errorf("status %d, stderr %s", r.status, r.stderr)
	}
}
