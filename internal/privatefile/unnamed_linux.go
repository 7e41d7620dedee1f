// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// createUnnamed writes a file that has no name until it is complete and on the
// disk: whenever its writer is killed, nothing is left of it. done is false where
// the file system has no such files, or nothing to name them by.
func createUnnamed(path string, content []byte) (done bool, err error) {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, nil // what is wrong with the folder, a file with a name meets, too
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := adopt(file, nil, path); err != nil {
		return true, err
	}
	if _, err := file.Write(content); err != nil {
		return true, err
	}
	if err := file.Sync(); err != nil {
		return true, err
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) {
		return true, &os.LinkError{Op: "link", Old: "a new file", New: path, Err: err}
	}
	return err == nil, nil // without /proc, for example
}
