// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/instancekey/instancekey/client"
)

// documents keeps what was answered at the places of metadata: package client reports
// what is wrong with it, and what is in it tells what to type.
type documents struct {
	base http.RoundTripper

	mu      sync.Mutex
	answers []answered
}

// answered is what one place has answered.
type answered struct {
	url, location, contentType string
	status                     int
	body                       []byte
}

// listed is a server's metadata, with what a Client does not go by.
type listed struct {
	client.Metadata
	Grants []string `json:"grant_types_supported"`
	Scopes []string `json:"scopes_supported"`
}

// RoundTrip implements http.RoundTripper.
func (d *documents) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.base.RoundTrip(req)
	if err != nil || !strings.Contains(req.URL.Path, "/.well-known/") {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFile))
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, answered{
		req.URL.String(), resp.Header.Get("Location"), resp.Header.Get("Content-Type"), resp.StatusCode, body,
	})
	return resp, nil
}

// found returns the first document that names an issuer; nil if there is none.
func (d *documents) found() *listed {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.answers {
		var document listed
		if a.status == http.StatusOK && json.Unmarshal(a.body, &document) == nil && document.Issuer != "" {
			return &document
		}
	}
	return nil
}

// first returns the first answer; nil if there was none.
func (d *documents) first() *answered {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.answers) == 0 {
		return nil
	}
	return &d.answers[0]
}
