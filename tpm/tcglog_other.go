// SPDX-License-Identifier: Apache-2.0

//go:build !windows

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
func WindowsEventLog(context.Context) ([]byte, error) {
	return nil, fmt.Errorf("%w: only Windows has TPM Base Services: use LinuxEventLog", errors.ErrUnsupported)
}
