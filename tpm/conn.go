// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2/transport"
)

const (
	headerSize = 10   // TPM 2.0 Part 1, "Command/Response Structure": tag, size, code
	maxMessage = 4096 // the largest command or response of a PC Client TPM, and the kernel's buffer
)

// NewConn makes a TPM connection of a stream, such as a [net.Conn] to swtpm's
// "server" socket, that carries plain TPM commands and responses:
//
//	Dial: func(ctx context.Context) (transport.TPMCloser, error) {
//		var d net.Dialer
//		conn, err := d.DialContext(ctx, "unix", "/run/swtpm.sock")
//		if err != nil {
//			return nil, err
//		}
//		return tpm.NewConn(conn), nil
//	}
//
// Send reads a response by the length in its header, in as many pieces as it comes in,
// and never more than 4096 bytes. It returns every response as it is, and does not repeat
// a command after a busy code. After an error the stream is out of step, and every later
// Send fails. Send must not be called concurrently.
func NewConn(rwc io.ReadWriteCloser) transport.TPMCloser { return &conn{stream: rwc} }

type conn struct {
	stream io.ReadWriteCloser
	broken error
}

func (c *conn) Send(command []byte) ([]byte, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	response, err := c.exchange(command)
	if err != nil {
		c.broken = fmt.Errorf("connection is broken: %w", err)
		return nil, err
	}
	return response, nil
}

func (c *conn) exchange(command []byte) ([]byte, error) {
	if _, err := c.stream.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, headerSize, maxMessage)
	if _, err := io.ReadFull(c.stream, response); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(response[2:])
	if size < headerSize || size > maxMessage {
		return nil, fmt.Errorf("%w: a response of %d bytes is announced", errGarbled, size)
	}
	response = response[:size]
	if _, err := io.ReadFull(c.stream, response[headerSize:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the header was there
		}
		return nil, err
	}
	return response, nil
}

func (c *conn) Close() error { return c.stream.Close() }
