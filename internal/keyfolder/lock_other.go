// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package keyfolder

import "os"

func isLocked(*os.File) bool { return false }
