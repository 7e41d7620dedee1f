// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Device is a TPM, or a way to one, that can be opened more than once. Whether two connections can be open at the same
// time, and what they share, is up to each Device. Closing a connection never stops the Device.
type Device interface {
	Dial(ctx context.Context) (transport.TPMCloser, error)
}

// Dial opens d for the length of the test.
func Dial(t testing.TB, d Device) transport.TPM {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatalf("tpmtest: opening %T: %v", d, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// FromTPM makes a Device of one connection: every Dial shares it, and commands queue.
func FromTPM(tpm transport.TPM) Device { return &sharedTPM{tpm: tpm} }

type sharedTPM struct {
	mu  sync.Mutex
	tpm transport.TPM
}

func (s *sharedTPM) send(cmd []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tpm.Send(cmd)
}

func (s *sharedTPM) Dial(context.Context) (transport.TPMCloser, error) {
	return &sharedConn{send: s.send}, nil
}

// sharedConn is a connection to something that outlives it.
type sharedConn struct {
	send func([]byte) ([]byte, error)

	mu     sync.Mutex
	closed bool
}

func (c *sharedConn) Send(cmd []byte) ([]byte, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	return c.send(cmd)
}

// Close ends this connection. A second call returns net.ErrClosed, so that a double close does not pass unseen.
func (c *sharedConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	return nil
}

// unavailable ends a test for want of a TPM: a skip on a user's machine, a failure where everything must have run.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("tpmtest: %s (a failure because CI is set)", why)
	}
	t.Skipf("tpmtest: %s", why)
}

// A TPM command and a TPM response have the same header: tag (2 bytes), length of the whole (4), and the command or the
// response code (4). TPM 2.0 Part 1, 16.
const (
	headerSize   = 10
	maxFrameSize = 4096
)

// commandCode returns 0, which is no command, for what is too short to have one.
func commandCode(cmd []byte) tpm2.TPMCC { return tpm2.TPMCC(headerCode(cmd)) }

func responseCode(rsp []byte) tpm2.TPMRC { return tpm2.TPMRC(headerCode(rsp)) }

func headerCode(frame []byte) uint32 {
	if len(frame) < headerSize {
		return 0
	}
	return binary.BigEndian.Uint32(frame[6:])
}

// frame puts the header of a command or response without sessions before body.
func frame(code uint32, body ...byte) []byte {
	f := make([]byte, 0, headerSize+len(body))
	f = binary.BigEndian.AppendUint16(f, uint16(tpm2.TPMSTNoSessions))
	f = binary.BigEndian.AppendUint32(f, uint32(headerSize+len(body)))
	f = binary.BigEndian.AppendUint32(f, code)
	return append(f, body...)
}
