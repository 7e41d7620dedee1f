// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/google/go-tpm/tpm2/transport"
)

const defaultDevice = "/dev/tpmrm0"

// openDevice opens a TPM's device file.
func openDevice(_ context.Context, path string) (transport.TPMCloser, error) {
	if path == "" {
		path = defaultDevice
	}
	// Not os.OpenFile, which would set O_NONBLOCK: the driver then queues the
	// command, and a read before it is done gives no bytes.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ENXIO) {
		if info, other := os.Stat(path); other == nil && info.Mode()&os.ModeSocket != 0 {
			return nil, notDevice(path)
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && info.Mode()&os.ModeCharDevice == 0 {
		err = notDevice(path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return deviceFile{file}, nil
}

func notDevice(path string) error {
	return fmt.Errorf("%s is not a device file: a socket is written unix:PATH", path)
}

// deviceFile is an open /dev/tpm*. The driver runs the command within write, and
// hands over the whole response in one read or not at all.
type deviceFile struct{ *os.File }

func (f deviceFile) Send(command []byte) ([]byte, error) {
	if _, err := f.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, maxMessage)
	n, err := f.Read(response)
	return response[:n], err
}
