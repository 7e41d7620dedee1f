// SPDX-License-Identifier: Apache-2.0

// Package redial sends second attempts on connections of their own. On HTTP/2 all
// requests to a server share one connection, so that a second attempt would wait on
// the very connection that has died.
package redial

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/instancekey/instancekey/internal/flight"
)

// Over returns base for use beside package flight. Only net/http's own Transport can
// be had with connections of its own; another base is returned as it is.
func Over(base http.RoundTripper) http.RoundTripper {
	if pooled, ok := base.(*http.Transport); ok && pooled != nil {
		return &redialer{Transport: pooled, fresh: sync.OnceValue(func() *http.Transport {
			fresh := pooled.Clone()
			fresh.DisableKeepAlives = true // one connection for each
			return fresh
		})}
	}
	return base
}

type redialer struct {
	*http.Transport // the pooled one, which the application may share with others

	fresh func() *http.Transport

	// overtaken is set when a new connection had an answer for a request that an old
	// one had none for.
	overtaken atomic.Bool
}

// RoundTrip sends a second attempt on a connection of its own.
func (r *redialer) RoundTrip(req *http.Request) (*http.Response, error) {
	if !flight.IsSecond(req.Context()) {
		if r.overtaken.Swap(false) {
			// By now nobody waits on the dead one any more, as a rule, and it is idle.
			r.Transport.CloseIdleConnections()
		}
		return r.Transport.RoundTrip(req)
	}
	resp, err := r.fresh().RoundTrip(req)
	if err == nil {
		r.overtaken.Store(true)
	}
	return resp, err
}
