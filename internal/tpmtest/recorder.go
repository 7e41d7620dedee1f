// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Recorder is a Device that keeps what passes through it to another. Safe for concurrent use.
type Recorder struct {
	device Device

	mu          sync.Mutex
	exchanges   []Exchange
	inFlight    int
	maxInFlight int
	dials       int
	open        int
}

// Exchange is one command and what came back. The bytes are copies, made before the command was passed on.
type Exchange struct {
	Code     tpm2.TPMCC
	Command  []byte
	Response []byte // nil if there was none
	Err      error  // of the connection; an error code of the TPM is in Response
}

// RC is the response code.
func (e Exchange) RC() tpm2.TPMRC { return responseCode(e.Response) }

// Record puts a Recorder before d.
func Record(d Device) *Recorder { return &Recorder{device: d} }

// Dial implements Device.
func (r *Recorder) Dial(ctx context.Context) (transport.TPMCloser, error) {
	r.mu.Lock()
	r.dials++
	r.mu.Unlock()
	conn, err := r.device.Dial(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.open++
	r.mu.Unlock()
	return &recorderConn{TPMCloser: conn, r: r}, nil
}

type recorderConn struct {
	transport.TPMCloser
	r *Recorder
}

func (c *recorderConn) Send(cmd []byte) ([]byte, error) {
	e := Exchange{Code: commandCode(cmd), Command: bytes.Clone(cmd)}
	c.r.mu.Lock()
	c.r.inFlight++
	c.r.maxInFlight = max(c.r.maxInFlight, c.r.inFlight)
	c.r.mu.Unlock()

	rsp, err := c.TPMCloser.Send(cmd)

	e.Response, e.Err = bytes.Clone(rsp), err
	c.r.mu.Lock()
	c.r.inFlight--
	c.r.exchanges = append(c.r.exchanges, e)
	c.r.mu.Unlock()
	return rsp, err
}

func (c *recorderConn) Close() error {
	err := c.TPMCloser.Close()
	if err == nil {
		c.r.mu.Lock()
		c.r.open--
		c.r.mu.Unlock()
	}
	return err
}

// Count returns how many commands with one of these codes have been answered or failed; of all commands if none is given.
func (r *Recorder) Count(codes ...tpm2.TPMCC) int {
	n := 0
	for _, code := range r.Codes() {
		if len(codes) == 0 || slices.Contains(codes, code) {
			n++
		}
	}
	return n
}

// Codes returns the commands in order.
func (r *Recorder) Codes() []tpm2.TPMCC {
	r.mu.Lock()
	defer r.mu.Unlock()
	codes := make([]tpm2.TPMCC, len(r.exchanges))
	for i, e := range r.exchanges {
		codes[i] = e.Code
	}
	return codes
}

// Exchanges returns the commands and responses in order.
func (r *Recorder) Exchanges() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.exchanges)
}

// Saw reports whether octets occur anywhere in the commands and responses.
func (r *Recorder) Saw(octets []byte) bool {
	return slices.ContainsFunc(r.Exchanges(), func(e Exchange) bool {
		return bytes.Contains(e.Command, octets) || bytes.Contains(e.Response, octets)
	})
}

// Dials returns how often Dial was called, and how many connections are open now.
func (r *Recorder) Dials() (dialled, open int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials, r.open
}

// MaxInFlight returns how many commands were with the device at the same time, at the most.
func (r *Recorder) MaxInFlight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.maxInFlight
}

// Reset forgets everything but the open connections.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanges, r.maxInFlight, r.dials = nil, r.inFlight, 0
}

// Want fails the test unless the commands since the last Reset were just these, in this order.
func (r *Recorder) Want(t testing.TB, codes ...tpm2.TPMCC) {
	t.Helper()
	if got := r.Codes(); !slices.Equal(got, codes) {
		t.Errorf("commands:\n got %s\nwant %s", Names(got), Names(codes))
	}
}
