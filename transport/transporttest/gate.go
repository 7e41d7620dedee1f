// SPDX-License-Identifier: Apache-2.0

package transporttest

import "sync"

// A Gate holds requests back until it is opened. Its Hold is for
// [Policy].Before or After.
type Gate struct {
	arrived chan Request
	open    chan struct{}
	once    sync.Once
}

// Gate returns a gate that is closed. Closing the server opens it.
func (s *Server) Gate() *Gate {
	g := &Gate{arrived: make(chan Request), open: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gates = append(s.gates, g)
	return g
}

// Hold returns once the gate is open.
func (g *Gate) Hold(r Request) {
	select {
	case g.arrived <- r:
		<-g.open
	case <-g.open:
	}
}

// Arrived waits until a request is held that it has not told of, and returns
// that.
func (g *Gate) Arrived() Request { return <-g.arrived }

// Open lets all requests through, now and later.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }
