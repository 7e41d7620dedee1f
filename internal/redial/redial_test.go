// SPDX-License-Identifier: Apache-2.0

package redial_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/internal/redial"
)

// TestDeadConnection: a request on a connection that has died is answered on another
// one after 5 seconds, and the one after it waits for nothing.
func TestDeadConnection(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
				server.Listener, server.EnableHTTP2 = n, http2
				server.StartTLS()
				defer server.Close()
				pooled := server.Client().Transport.(*http.Transport)
				pooled.DialContext = n.dial
				defer pooled.CloseIdleConnections()
				base := redial.Over(pooled)

				get := func(ctx context.Context) (string, error) {
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
					if err != nil {
						return "", err
					}
					resp, err := base.RoundTrip(req)
					if err != nil {
						return "", err
					}
					defer resp.Body.Close()
					proto, err := io.ReadAll(resp.Body)
					return string(proto), err
				}
				for i, want := range []struct {
					after time.Duration
					dials int
				}{{0, 1}, {5 * time.Second, 2}, {0, 3}, {0, 3}, {5 * time.Second, 4}, {0, 5}} {
					if i == 1 || i == 4 { // the second time that of the second attempt, too
						n.kill()
					}
					start := time.Now()
					proto, err := flight.Attempt(t.Context(), 30*time.Second, flight.Always, get)
					synctest.Wait()
					if err != nil || proto != name || time.Since(start) != want.after || n.dials() != want.dials {
						t.Errorf("request %d: %q, %v after %v, %d connections; want %v, %d", i+1, proto, err, time.Since(start), n.dials(), want.after, want.dials)
					}
				}
			})
		})
	}
}

// TestOtherBase: a base of another type is used as it is.
func TestOtherBase(t *testing.T) {
	other := http.NewFileTransport(http.Dir("."))
	var none *http.Transport
	if redial.Over(other) != other || redial.Over(nil) != nil || redial.Over(none) != http.RoundTripper(none) {
		t.Error("another base is wrapped")
	}
}

// network is a server's listener in memory, and what clients dial it by.
type network struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    func()

	mu    sync.Mutex
	conns []*conn
}

func newNetwork() *network {
	n := &network{accepted: make(chan net.Conn), closed: make(chan struct{})}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	return n
}

func (n *network) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	c := &conn{Conn: here}
	n.mu.Lock()
	n.conns = append(n.conns, c)
	n.mu.Unlock()
	select {
	case n.accepted <- there:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// kill has what is written on all connections of now vanish.
func (n *network) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.mu.Lock()
		c.dead = true
		c.mu.Unlock()
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.close()
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

type conn struct {
	net.Conn
	mu   sync.Mutex
	dead bool
}

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	dead := c.dead
	c.mu.Unlock()
	if dead {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
