// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the child also when this process ends without running its cleanups (a panic, a test timeout).
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
