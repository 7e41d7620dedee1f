// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package keyfolder

import (
	"os"
	"syscall"
)

// isLocked reports whether somebody else has the lock. Otherwise the caller has it
// now, until it closes dir.
func isLocked(dir *os.File) bool {
	return syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}
