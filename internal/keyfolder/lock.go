// SPDX-License-Identifier: Apache-2.0

package keyfolder

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

// The lock is tried again after firstTry, then after twice as long and so on up to
// longestTry: flock has no wait that a context could end. Whoever has it for as long
// as patience hangs.
const (
	firstTry   = time.Millisecond
	longestTry = 100 * time.Millisecond
	patience   = 2 * time.Minute
)

// Lock keeps all others who call it for this folder, also in other processes,
// waiting until unlock is called. It is for changes that must not be seen by
// halves, such as of a file and of what it names elsewhere. The wait ends with ctx,
// or after two minutes with keystore.ErrUnavailable. Whoever is killed has unlocked.
// Where the file system or the operating system has no such locks, nobody waits. On
// Windows the lock is a file of its own, .lock, which stays.
func (f Folder) Lock(ctx context.Context) (unlock func(), err error) {
	lock, err := privatefile.OpenLock(f.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: folder: %w", f.pkg, keystore.ErrUnavailable, err)
	}
	hangs := time.NewTimer(patience)
	defer hangs.Stop()
	for wait := firstTry; isLocked(lock); wait = min(2*wait, longestTry) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			lock.Close()
			return nil, fmt.Errorf("%s: waiting for another process that changes keys in %s: %w", f.pkg, f.path, ctx.Err())
		case <-hangs.C:
			lock.Close()
			return nil, fmt.Errorf("%s: %w: somebody has been changing keys in %s for %v: end the process that hangs", f.pkg, keystore.ErrUnavailable, f.path, patience)
		}
	}
	return func() { lock.Close() }, nil
}

// isLocked reports whether somebody else has the lock. Otherwise the caller has it
// now, until it closes the file.
func isLocked(lock *os.File) bool {
	locked, known := privatefile.TryLock(lock)
	return known && !locked
}
