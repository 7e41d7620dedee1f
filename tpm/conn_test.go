// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"

	"context"

	"github.com/google/go-tpm/tpm2/transport"
)

// stream answers with what is in its Reader.
type stream struct {
	io.Reader
	written bytes.Buffer
	closed  int
}

func (s *stream) Write(p []byte) (int, error) { return s.written.Write(p) }
func (s *stream) Close() error                { s.closed++; return nil }

func response(size int) []byte {
	r := make([]byte, size)
	binary.BigEndian.PutUint16(r, 0x8001)
	binary.BigEndian.PutUint32(r[2:], uint32(size))
	for i := 10; i < size; i++ {
		r[i] = byte(i)
	}
	return r
}

func TestConn(t *testing.T) {
	for _, size := range []int{10, 11, 100, 4096} {
		want := response(size)
		s := &stream{Reader: iotest.OneByteReader(bytes.NewReader(append(bytes.Clone(want), want...)))}
		conn := tpm.NewConn(s)
		for range 2 {
			got, err := conn.Send([]byte("command"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("a response of %d bytes: got %d, %v", size, len(got), err)
			}
		}
		if s.written.String() != "commandcommand" {
			t.Errorf("%q was sent", s.written.String())
		}
		if err := conn.Close(); err != nil || s.closed != 1 {
			t.Errorf("Close: %v, closed %d times", err, s.closed)
		}
	}
}

func TestConnErrors(t *testing.T) {
	header := func(size uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{0x80, 1}, size)
	}
	for name, answer := range map[string][]byte{
		"nothing":     {},
		"torn header": {0x80, 1, 0},
		"torn":        response(100)[:99],
		"no body":     response(100)[:10],
		"too small":   append(header(9), 0, 0, 0, 0),
		"too large":   append(header(4097), make([]byte, 5000)...),
		"huge":        append(header(1<<32-1), make([]byte, 5000)...),
	} {
		conn := tpm.NewConn(&stream{Reader: bytes.NewReader(append(answer, response(10)...)[:len(answer)])})
		got, err := conn.Send([]byte("command"))
		if err == nil {
			t.Errorf("%s: %x", name, got)
		}
		if name == "no body" && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, want io.ErrUnexpectedEOF", name, err)
		}
		if _, again := conn.Send([]byte("command")); !errors.Is(again, err) {
			t.Errorf("%s: afterwards %v, want it to match %v", name, again, err)
		}
	}
}

// TestConnToSWTPM: NewConn is what Config.Dial needs for swtpm's socket.
func TestConnToSWTPM(t *testing.T) {
	for _, config := range []tpmtest.SWConfig{{}, {TCP: true}} {
		sw := tpmtest.SWTPM(t, config)
		r := newRig(t, sw, func(c *tpm.Config) {
			c.Dial = func(ctx context.Context) (transport.TPMCloser, error) {
				network, address := sw.Addr()
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return tpm.NewConn(conn), nil
			}
		})
		sign(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	}
}

// FuzzConn: whatever a stream gives, a response is as long as its header says,
// at most 4096 bytes, and the bytes after it are left for the next one.
func FuzzConn(f *testing.F) {
	f.Add(response(10))
	f.Add(response(4096))
	f.Add(append(response(10), response(100)...))
	f.Add(response(100)[:99])
	f.Add([]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, answer []byte) {
		reader := bytes.NewReader(answer)
		conn := tpm.NewConn(&stream{Reader: reader})
		rest := answer
		for {
			got, err := conn.Send([]byte("command"))
			if err != nil {
				return
			}
			if len(got) < 10 || len(got) > 4096 || binary.BigEndian.Uint32(got[2:]) != uint32(len(got)) {
				t.Fatalf("a response of %d bytes: %x", len(got), got)
			}
			if !bytes.HasPrefix(rest, got) {
				t.Fatalf("%x is not the begin of %x", got, rest)
			}
			if rest = rest[len(got):]; reader.Len() != len(rest) {
				t.Fatalf("%d bytes left, want %d", reader.Len(), len(rest))
			}
		}
	})
}
