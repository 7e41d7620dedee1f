// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package main

import (
	"context"

	"github.com/instancekey/instancekey/tpm"
)

// runService is for Windows: service managers elsewhere need no word from a program.
func runService([]string) (status int, isService bool) { return 0, false }

func bootLog(ctx context.Context) ([]byte, error) { return tpm.LinuxEventLog(ctx) }

const adviceOwner = "if files below -state are root's, somebody has run this program by hand: give them back (chown -R --reference)"
