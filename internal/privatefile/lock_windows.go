// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

const hasLocks = true

// lockedOffset is the high half of the offset of the byte that is locked: behind
// the end of any file, since nobody can read a byte that another has locked.
const lockedOffset = 0x40000000

// TryLock locks a file until it is closed or its process ends, if nobody else has
// locked it. known is false where the file system has no locks.
func TryLock(file *os.File) (locked, known bool) {
	at := windows.Overlapped{OffsetHigh: lockedOffset}
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	switch {
	case err == nil:
		return true, true
	case isOne(err, windows.ERROR_LOCK_VIOLATION, windows.ERROR_IO_PENDING):
		return false, true
	default:
		return false, false
	}
}

// OpenLock opens what TryLock locks for a folder: a file in it, since folders
// cannot be locked. It stays, and cannot be removed while it is open.
func OpenLock(dir string) (*os.File, error) {
	return makeFile(filepath.Join(dir, ".lock"), windows.GENERIC_READ|windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, windows.OPEN_ALWAYS)
}
