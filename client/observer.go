// SPDX-License-Identifier: Apache-2.0

package client

import (
	"net/http"
	"net/url"
	"time"
)

// observer is a base transport that tells a clock that was never set from an
// invalid certificate, and from some of whose responses the clock learns.
type observer struct {
	base   http.RoundTripper
	clock  *clock
	learns func(from *url.URL) bool
}

// CloseIdleConnections is for http.Client's method of that name.
func (o observer) CloseIdleConnections() {
	if base, ok := o.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (o observer) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return nil, o.clock.explain(err)
	}
	if resp.TLS != nil && o.learns(req.URL) {
		o.clock.observe(resp, time.Since(start))
	}
	return resp, nil
}
