// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"golang.org/x/sys/windows"
)

// Where a file cannot be replaced while anybody has it open, as on Wine and on file
// systems other than NTFS, one that is always being read would never be. So whoever
// waits there claims it, and the readers of this package hold back meanwhile.

// shyness is how long a reader holds back at the most: a claim only asks.
const shyness = time.Second

// claimName names the event that is there as long as a file is claimed. The session
// of the user has it, and it goes with the last process that has it open.
func claimName(path string) (*uint16, error) {
	long, err := longPath(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(strings.ToLower(long)))
	return windows.UTF16PtrFromString("instancekey-" + hex.EncodeToString(sum[:16]))
}

// claimFile claims a file, if it can. release gives it back.
func claimFile(path string) (release func()) {
	name, err := claimName(path)
	if err != nil {
		return func() {}
	}
	event, _ := windows.CreateEvent(nil, 1, 0, name) // that it is there already is an error, too
	if event == 0 {
		return func() {}
	}
	return func() { _ = windows.CloseHandle(event) }
}

// holdBack waits while somebody claims a file.
func holdBack(path string) {
	name, err := claimName(path)
	if err != nil {
		return
	}
	deadline := time.Now().Add(shyness)
	for moment := firstWait; time.Now().Before(deadline); moment = min(2*moment, longestWait) {
		event, err := windows.OpenEvent(windows.SYNCHRONIZE, false, name)
		if err != nil {
			return
		}
		_ = windows.CloseHandle(event)
		time.Sleep(moment)
	}
}
