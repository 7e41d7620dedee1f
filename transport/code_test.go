// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// TestCode: wherever the server puts it, for requests that were authenticated.
func TestCode(t *testing.T) {
	tests := []struct {
		name        string
		status      int
		www, body   string
		code        string
		passThrough bool
	}{
		{name: "body", status: 400, body: `{"error":"invalid_grant"}`, code: "invalid_grant"},
		{name: "WWW-Authenticate", status: 401, www: `Attest error="invalid_client_attestation"`, code: "invalid_client_attestation"},
		{name: "both", status: 401, www: `Basic realm="x"`, body: `{"error":"invalid_client"}`, code: "invalid_client"},
		{name: "asked to send again", status: 400, body: `{"error":"use_attestation_challenge"}`, code: "use_attestation_challenge"},
		{name: "none", status: 401, body: `[]`},
		{name: "success", status: 200, body: `{"error":"invalid_grant"}`},
		{name: "not authenticated", status: 400, body: `{"error":"invalid_grant"}`, passThrough: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
				c.Base = roundTripper(func(*http.Request) (*http.Response, error) {
					header := http.Header{"Content-Type": {"application/json"}}
					if test.www != "" {
						header.Set("WWW-Authenticate", test.www)
					}
					return &http.Response{StatusCode: test.status, Header: header, Body: io.NopCloser(strings.NewReader(test.body))}, nil
				})
			})
			req := f.request(t.Context())
			if test.passThrough {
				req.URL.Path = "/elsewhere"
			}
			resp := f.want(test.status, req)
			if code, _ := transport.Refused(resp); code != test.code {
				t.Errorf("Code is %q, want %q", code, test.code)
			}
		})
	}
	if code, _ := transport.Refused(nil); code != "" {
		t.Errorf("Code of no response is %q", code)
	}
}
