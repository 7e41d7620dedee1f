// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	shift = '+' // before an upper-case letter; elsewhere it only makes a name another
	lock  = '#' // before and after three upper-case letters or more
)

// devices are the names that Windows has for devices, with any extension.
var devices = []string{
	"aux", "con", "nul", "prn",
	"com0", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
	"lpt0", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
}

// escape returns a name without upper-case letters that is no device's and has no
// dot at its end: "MyKey" is +my+key, "KEY" is #key#, "nul.x" is nul+.x, "a." is a.+. It
// is at most 5/3 as long as the name, and one, so that 128 letters remain a name of a
// file.
func escape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		run := uppers(name[i:])
		switch lower := strings.ToLower(name[i : i+max(run, 1)]); {
		case run >= 3:
			b.WriteByte(lock)
			b.WriteString(lower)
			b.WriteByte(lock)
		case run > 0:
			for _, letter := range lower {
				b.WriteByte(shift)
				b.WriteRune(letter)
			}
		default:
			b.WriteString(lower)
		}
		i += max(run, 1)
	}
	file := b.String()
	if base, rest, found := strings.Cut(file, "."); slices.Contains(devices, base) {
		file = base + string(shift)
		if found {
			file += "." + rest
		}
	}
	if strings.HasSuffix(file, ".") {
		file += string(shift)
	}
	return file
}

// uppers counts the upper-case letters that text begins with.
func uppers(text string) int {
	n := 0
	for n < len(text) && 'A' <= text[n] && text[n] <= 'Z' {
		n++
	}
	return n
}

// unescape returns the name whose escaped form it is, in whatever case.
func unescape(file string) (name string, ok bool) {
	if strings.ContainsFunc(file, func(c rune) bool { return c >= utf8.RuneSelf }) {
		return "", false // letters that become ASCII when they are lowered, such as the sign for kelvin
	}
	file = strings.ToLower(file)
	upper, shifted := false, false
	var b strings.Builder
	for _, c := range file {
		switch {
		case c == shift:
			shifted = true
			continue
		case c == lock:
			upper = !upper
			continue
		case upper || shifted:
			b.WriteString(strings.ToUpper(string(c)))
		default:
			b.WriteRune(c)
		}
		shifted = false
	}
	name = b.String()
	return name, escape(name) == file
}
