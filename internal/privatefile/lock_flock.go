// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package privatefile

import (
	"os"
	"syscall"
)

const hasLocks = true

// TryLock locks a file or a folder until it is closed or its process ends, if
// nobody else has locked it. known is false where the file system has no locks.
func TryLock(file *os.File) (locked, known bool) {
	for {
		switch err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
		case nil:
			return true, true
		case syscall.EWOULDBLOCK:
			return false, true
		case syscall.EINTR:
		default:
			return false, false
		}
	}
}
