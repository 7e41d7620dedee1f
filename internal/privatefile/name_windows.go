// SPDX-License-Identifier: Apache-2.0

package privatefile

import "strings"

// FileName returns the name of the file for a name that keystore.CheckName allows,
// with an extension, or "". Windows takes b and B for one file, nul and nul.pem for a
// device, and removes a dot at the end: such names are escaped, so that each has a
// file of its own.
func FileName(name, extension string) string { return escape(name) + extension }

// NameOf is the inverse of FileName. ok is false if no name has that file. Windows
// lets anybody write the names of files in capital letters.
func NameOf(file, extension string) (name string, ok bool) {
	end := len(file) - len(extension)
	if end < 0 || !strings.EqualFold(file[end:], extension) {
		return "", false
	}
	return unescape(file[:end])
}
