// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
)

// WindowsEventLog reads the measured-boot log that Windows keeps, in the TPM Base
// Services (Tbsi_Get_TCG_Log), for Config.EventLog. It shows in detail what the
// machine has booted. Give it only to a Store on this machine's own TPM: with any
// other, it does not explain the PCRs.
//
// It fails if the log has more than 1 MiB, and on other systems with
// [errors.ErrUnsupported].
func WindowsEventLog(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	log, err := readTCGLog()
	switch {
	case errors.Is(err, tbsNoEventLog):
		return nil, fmt.Errorf("%w: the firmware left no log", err)
	case errors.Is(err, tbsAccessDenied):
		return nil, fmt.Errorf("%w: run as administrator, or have a service that is one hand the log over", err)
	}
	return log, err
}

func readTCGLog() ([]byte, error) {
	c, err := openTBS()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	size, err := c.GetTCGLog(nil)
	if err != nil {
		return nil, tbsError(err)
	}
	if size == 0 {
		return nil, tbsNoEventLog
	}
	log := make([]byte, min(size, maxEventLog+1))
	if err := checkEventLog(log); err != nil {
		return nil, err
	}
	size, err = c.GetTCGLog(log)
	if err != nil {
		return nil, tbsError(err)
	}
	return log[:min(int(size), len(log))], nil
}
