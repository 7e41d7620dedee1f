// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/transport"
)

// A Trap is an origin that no credential may reach: another host than a
// Server's. It fails the test for each request that carries a header field of
// client authentication, a DPoP proof, an Authorization, or a body.
type Trap struct {
	URL string // http, a loopback host

	visits atomic.Int64
}

// NewTrap starts a Trap that lasts until the test ends.
func NewTrap(tb testing.TB) *Trap {
	t := new(Trap)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.visits.Add(1)
		for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP, "DPoP", "Authorization"} {
			if n := len(r.Header.Values(name)); n > 0 {
				tb.Errorf("transporttest: %s %s reached a foreign origin with %d %s", r.Method, r.URL.Path, n, name)
			}
		}
		if n, _ := io.Copy(io.Discard, r.Body); n > 0 {
			tb.Errorf("transporttest: %s %s reached a foreign origin with a body of %d bytes", r.Method, r.URL.Path, n)
		}
	}))
	tb.Cleanup(server.Close)
	// Another name and another port: what net/http takes for another host.
	t.URL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return t
}

// Visits returns how many requests have come, with or without credentials.
func (t *Trap) Visits() int { return int(t.visits.Load()) }
