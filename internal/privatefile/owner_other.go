// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package privatefile

import (
	"io/fs"
	"os"
)

// adopt: the access control list of the folder says who may use a new file.
func adopt(*os.File, fs.FileInfo, string) error { return nil }
