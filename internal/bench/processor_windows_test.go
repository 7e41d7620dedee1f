// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used. Other programs are at work, too.
func processorTime(t *testing.T) time.Duration {
	self, err := syscall.GetCurrentProcess()
	if err != nil {
		t.Fatal(err)
	}
	var created, ended, kernel, user syscall.Filetime
	if err := syscall.GetProcessTimes(self, &created, &ended, &kernel, &user); err != nil {
		t.Fatal(err)
	}
	hundredNanoseconds := func(f syscall.Filetime) time.Duration {
		return time.Duration(int64(f.HighDateTime)<<32 + int64(f.LowDateTime))
	}
	return 100 * (hundredNanoseconds(kernel) + hundredNanoseconds(user))
}
