// SPDX-License-Identifier: Apache-2.0

package keyfile

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// maxHandleBlock is more than any block of a persistent handle has, in bytes.
const maxHandleBlock = 1 << 10

// Handles returns the persistent handles that a text names, of whatever length, whose key
// cannot be read. legible is false if it names one more, or did before it was torn, that
// cannot be read either. The error is the reader's.
func Handles(text io.Reader) (handles []tpm2.TPMHandle, legible bool, err error) {
	begin := []byte(lineBegin + blockHandle + lineTail)
	window := make([]byte, 0, 64<<10)
	for legible = true; ; {
		n, err := io.ReadFull(text, window[len(window):cap(window)])
		window = window[:len(window)+n]
		isLast := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !isLast {
			return nil, false, err
		}
		at := bytes.Index(window, begin)
		for at >= 0 && (isLast || len(window)-at >= maxHandleBlock) {
			if handle := handleAt(window[at:]); handle == 0 {
				legible = false
			} else if !slices.Contains(handles, handle) {
				handles = append(handles, handle)
			}
			rest := at + len(begin)
			if at = bytes.Index(window[rest:], begin); at >= 0 {
				at += rest
			}
		}
		if isLast {
			last := window[bytes.LastIndexByte(window, '\n')+1:]
			torn := len(last) > len(lineBegin) && bytes.HasPrefix(begin, last) && len(last) < len(begin)
			return handles, legible && !torn, nil
		}
		if at < 0 {
			at = len(window) - len(begin)
		}
		window = append(window[:0], window[at:]...)
	}
}

// handleAt returns the handle in the block that a text begins with, 0 if there is none.
func handleAt(text []byte) tpm2.TPMHandle {
	text = text[:min(len(text), maxHandleBlock)]
	if next := bytes.Index(text[len(lineBegin):], []byte(lineBegin)); next >= 0 {
		text = text[:len(lineBegin)+next]
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != blockHandle || len(b.Bytes) != 4 {
		return 0
	}
	handle := tpm2.TPMHandle(binary.BigEndian.Uint32(b.Bytes))
	if CheckPersistent(handle) != nil {
		return 0
	}
	return handle
}
