// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

const defaultDevice = "/dev/tpmrm0"

// dialDevice returns what opens a TPM's device file, again and again. The kernel gives a
// driver that comes back another number, since IMA and whoever has a device file open
// keep the chip of before. So the chip that was open once is looked for by its place in
// the machine, and before that, if no other device is named, the only one is taken.
func dialDevice(path string) func(context.Context) (transport.TPMCloser, error) {
	pattern := ""
	if path == "" || path == defaultDevice {
		path, pattern = defaultDevice, "/dev/tpmrm[0-9]*"
	}
	return func(context.Context) (transport.TPMCloser, error) {
		file, err := openDevice(path)
		if isGone(err) {
			if again, other := reopen(pattern); again != nil || other != nil {
				file, err = again, other
			}
		}
		if err != nil {
			return nil, err
		}
		if place := placeOf(file); place != "" {
			pattern = place + "/*"
		}
		return deviceFile{file}, nil
	}
}

// reopen opens the only TPM of the machine whose name matches the pattern. It returns nil
// and nil if there is none, or several, or if it cannot be told from one in software.
func reopen(pattern string) (*os.File, error) {
	found := theOnly(pattern)
	if found == "" {
		return nil, nil
	}
	file, err := openDevice("/dev/" + filepath.Base(found))
	if err != nil {
		return nil, err
	}
	if placeOf(file) == "" {
		file.Close()
		return nil, nil
	}
	return file, nil
}

func openDevice(path string) (*os.File, error) {
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
	return file, nil
}

func notDevice(path string) error {
	return fmt.Errorf("%s is not a device file: a socket is written unix:PATH", path)
}

func isGone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV)
}

// placeOf returns the folder that the kernel keeps for the chip's device files of this kind,
// such as /sys/devices/platform/MSFT0101:00/tpmrm, or "" if that cannot be seen, or is no
// place in the machine: a container's TPM in software (vtpm_proxy) is virtual.
func placeOf(file *os.File) string {
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	number := uint64(info.Sys().(*syscall.Stat_t).Rdev)
	const folder = "/sys/dev/char"
	device, err := os.Readlink(fmt.Sprintf("%s/%d:%d", folder, unix.Major(number), unix.Minor(number)))
	place := filepath.Join(folder, filepath.Dir(device))
	if err != nil || strings.HasPrefix(place, "/sys/devices/virtual/") {
		return ""
	}
	return place
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
