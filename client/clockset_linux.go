// SPDX-License-Identifier: Apache-2.0

package client

import (
	"os"
	"syscall"
)

// SystemClockIsSet reports whether Linux says that its clock is set, for
// TimekeeperConfig.IsSet: a time service (chrony, ntpd, systemd-timesyncd) keeps it now,
// or systemd-timesyncd has set it since the machine was started. It does not say so of a
// clock that was set by hand or from a real-time clock, which may be wrong. In a service
// whose system calls are filtered, adjtimex has to be allowed, which sets nothing without
// CAP_SYS_TIME. On other systems the answer is false.
func SystemClockIsSet() bool {
	const unsynchronized = 0x40 // STA_UNSYNC, see adjtimex(2)
	var state syscall.Timex
	if _, err := syscall.Adjtimex(&state); err == nil && state.Status&unsynchronized == 0 {
		return true
	}
	_, err := os.Stat("/run/systemd/timesync/synchronized")
	return err == nil
}
