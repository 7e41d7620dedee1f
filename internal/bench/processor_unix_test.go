// SPDX-License-Identifier: Apache-2.0

//go:build unix

package bench_test

import (
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used. Other programs are at work, too.
func processorTime(t *testing.T) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
