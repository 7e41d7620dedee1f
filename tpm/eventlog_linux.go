// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// awaitWriter locks a log until it is closed: systemd extends a PCR and writes that
// down under a lock. Files of the kernel have no lock, and need none.
func awaitWriter(ctx context.Context, log *os.File) error {
	for {
		err := syscall.Flock(int(log.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
