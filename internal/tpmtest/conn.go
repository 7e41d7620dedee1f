// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// socketConn speaks plain TPM commands over a socket.
type socketConn struct{ net.Conn }

func (c socketConn) Send(cmd []byte) ([]byte, error) {
	if _, err := c.Write(cmd); err != nil {
		return nil, err
	}
	return readFrame(c)
}

// readFrame reads one command or response, whose header says how long it is.
func readFrame(r io.Reader) ([]byte, error) {
	f := make([]byte, headerSize, maxFrameSize)
	if _, err := io.ReadFull(r, f); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(f[2:])
	if size < headerSize || size > maxFrameSize {
		return nil, fmt.Errorf("tpmtest: a TPM frame of %d bytes", size)
	}
	f = f[:size]
	if _, err := io.ReadFull(r, f[headerSize:]); err != nil {
		return nil, fmt.Errorf("tpmtest: torn TPM frame: %w", err)
	}
	return f, nil
}
