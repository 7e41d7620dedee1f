// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package privatefile

import "os"

// Windows renames no open file, so the writer cannot hold a lock until then.
const hasLocks = false

func tryLock(*os.File) (locked, known bool) { return false, false }
